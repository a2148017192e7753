/** Server processes for tests. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** A `passbook serve` on the ledger of PASSBOOK_DATABASE_URL. */
export class ServerProcess {
  address = "127.0.0.1:0";
  #process: ChildProcess | undefined;
  #starting: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** Starts the server, at the address that it had before, and waits until it is ready. */
  start(): Promise<void> {
    if (!this.#isClosed) this.#starting = this.#start();
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { process, line } = await serve(["--listen", this.address]);
    this.#process = process;
    this.address = line.replace("ready: listening on ", "").split(",")[0] ?? "";
  }

  /** Ends the process with SIGKILL. */
  async kill(): Promise<void> {
    await ended(this.#process, "SIGKILL");
  }

  /** Ends the process for good, also if another step restarts it at this moment. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#starting.catch(() => undefined);
    await this.kill();
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  /** Stops the process, and waits until it has stopped. */
  pause(): void {
    this.#process?.kill("SIGSTOP");
    const options = ["-o", "state=", "-p", String(this.#process?.pid)];
    while (!execFileSync("ps", options).toString().startsWith("T"));
  }

  resume(): void {
    this.#process?.kill("SIGCONT");
  }
}

/** Starts a `passbook serve --ephemeral`: a ledger that is gone at the end. */
export async function startEphemeral(...options: string[]) {
  const { process, line } = await serve(["--ephemeral", ...options]);
  const { address } = JSON.parse(line) as { address: string };
  return { address, stop: () => ended(process, "SIGTERM") };
}

async function serve(options: string[]): Promise<{ process: ChildProcess; line: string }> {
  const env = { ...process.env };
  if (options.includes("--ephemeral")) delete env["PASSBOOK_DATABASE_URL"];
  const child = spawn(
    process.env["PASSBOOK_TEST_BIN"] ?? "passbook",
    ["--log", "error", "serve", ...options],
    {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  for await (const line of createInterface(child.stdout)) return { process: child, line };
  throw new Error("the server has not started");
}

async function ended(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, "exit");
}
