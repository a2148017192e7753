/** The servers that a client knows, each with one connection. */

import { BlockList, isIPv4, isIPv6 } from "node:net";

import {
  type ChannelOptions,
  Client,
  type Metadata,
  connectivityState,
  credentials,
} from "@grpc/grpc-js";

import { SharedStream } from "./sharedStream.js";

/** How long a server that has answered UNAVAILABLE is passed over. */
const PASS_OVER_MS = 1000;

const OPTIONS: ChannelOptions = {
  // A restarted server is found within a second, not within two minutes.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
  // A connection without a peer is found also while a watch waits for entries.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // The client repeats requests itself: it knows which ones.
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1,
};

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8);
LOOPBACK.addAddress("::1", "ipv6");

/** Whether a server with this `HOST:PORT` is on this machine. */
export function isLoopback(address: string): boolean {
  const [, ipv6, name] = /^(?:\[(.+)\]|([^:]+)):\d+$/.exec(address) ?? [];
  if (ipv6 !== undefined) return isIPv6(ipv6) && LOOPBACK.check(ipv6, "ipv6");
  if (name === undefined) return false;
  return name === "localhost" || (isIPv4(name) && LOOPBACK.check(name));
}

/** TLS, and mutual TLS if there is a certificate of the client. All are in PEM. */
export interface Tls {
  /** The authorities that issue the servers' certificates. Default: those that come with Node. */
  authorities?: Buffer;
  /** The certificate of the client, with its chain. */
  certificate?: Buffer;
  /** The private key of the client's certificate. */
  key?: Buffer;
  /** The name in the servers' certificates, if it differs from the host of the address. */
  serverName?: string;
}

/** One server and the connection to it, which is opened on first use and reopened when lost. */
export class Server {
  readonly connection: Client;
  readonly sharedStream: SharedStream;
  #passedOverUntil = 0;

  constructor(address: string, tls: Tls | undefined, metadata: () => Promise<Metadata>) {
    const options = { ...OPTIONS };
    // A proxy of the environment (`http_proxy`) could be another machine.
    if (isLoopback(address)) options["grpc.enable_http_proxy"] = 0;
    if (tls?.serverName !== undefined) {
      options["grpc.ssl_target_name_override"] = tls.serverName;
      options["grpc.default_authority"] = tls.serverName;
    }
    const security =
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(tls.authorities, tls.key, tls.certificate);
    this.connection = new Client(address, security, options);
    this.sharedStream = new SharedStream(this.connection, metadata);
  }

  /** Prefers other servers for a while. */
  passOver(): void {
    this.#passedOverUntil = performance.now() + PASS_OVER_MS;
  }

  /** Whether the server has not answered UNAVAILABLE just now. */
  get isAvailable(): boolean {
    return performance.now() >= this.#passedOverUntil;
  }

  /** Whether there is a connection. If there is none, it is opened. */
  get isConnected(): boolean {
    return this.connection.getChannel().getConnectivityState(true) === connectivityState.READY;
  }
}

/** Selects servers in turn. */
export class Servers {
  readonly #all: Server[];
  #next = 0;

  constructor(
    addresses: readonly string[],
    tls: Tls | undefined,
    metadata: () => Promise<Metadata>,
  ) {
    if (addresses.length === 0) {
      throw new Error("a client needs the address of at least one server");
    }
    this.#all = addresses.map((address) => new Server(address, tls, metadata));
  }

  /**
   * The next server that is available, or the next one if none is. One with a connection comes before
   * one without: a call to a server that hangs would wait for the connection until its time is up.
   */
  select(): Server {
    const inTurn = [...this.#all.slice(this.#next), ...this.#all.slice(0, this.#next)];
    const available = inTurn.filter((server) => server.isAvailable);
    const connected = available.filter((server) => server.isConnected);
    const selected = connected[0] ?? available[0] ?? inTurn[0];
    if (selected === undefined) throw new Error("there is no server");
    this.#next = (this.#all.indexOf(selected) + 1) % this.#all.length;
    return selected;
  }

  /** Closes all connections. */
  close(): void {
    for (const { connection, sharedStream } of this.#all) {
      sharedStream.close();
      connection.close();
    }
  }
}
