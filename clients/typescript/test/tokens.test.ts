/** Where a token may go. */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import { Client } from "../src/index.js";
import { connect, start } from "./fakeServer.js";

test("a token needs TLS on the way to another machine", () => {
  const remote = [
    "203.0.113.1:50051",
    "passbook.internal:50051",
    "127.example.com:50051",
    "localhost.example.com:50051",
    "[2001:db8::1]:50051",
    "dns:///localhost:50051",
  ];
  for (const address of remote) {
    for (const token of ["secret", () => "secret"]) {
      const connected = () => new Client(["127.0.0.1:50051", address], { token });
      assert.throws(connected, (error: Error) => {
        return error.message.includes(address) && !error.message.includes("secret");
      });
    }
    new Client(address, { token: "secret", tls: {} }).close();
    new Client(address).close();
  }
  for (const address of ["127.0.0.1:50051", "127.1.2.3:1", "[::1]:50051", "localhost:50051"]) {
    new Client(address, { token: "secret" }).close();
  }
});

/** Sets a variable until the end of the test. */
function setVariable(t: TestContext, name: string, value: string): void {
  const before = process.env[name];
  process.env[name] = value;
  t.after(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, name);
    else process.env[name] = before;
  });
}

test("a token for this machine does not go to a proxy", async (t) => {
  setVariable(t, "grpc_proxy", "http://127.0.0.1:1");
  setVariable(t, "no_grpc_proxy", "example.com");
  const address = await start(t, {
    sumBalances: (_, callback) => {
      callback(null, { sums: [] });
    },
  });
  const client = connect(t, address, { token: "secret" });
  assert.deepEqual(await client.sumBalances({}, { timeoutMs: 2000 }), []);
});
