// One client of the robot: the unmodified TypeScript SDK in Node, told what to do line by line.
//
//     node viam_client.mjs FOLDER_WITH_NODE_MODULES UNIX_SOCKET grpc-web|grpc
//
// Over gRPC-web (the SDK's own way, by fetch) or over native gRPC.

import { setDefaultResultOrder } from "node:dns";
import { createRequire } from "node:module";
import { createConnection } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Client, answer } from "./robot.mjs";

const [folder, socket, transport] = process.argv.slice(2);
const modules = join(folder, "node_modules");
// The robot listens on 127.0.0.1, and the name that the SDK wants may come out as ::1 first.
setDefaultResultOrder("ipv4first");
if (transport === "grpc") {
  const { createGrpcTransport } = createRequire(join(modules, "x"))("@connectrpc/connect-node");
  globalThis.VIAM = { GRPC_TRANSPORT_FACTORY: (options) => createGrpcTransport({ httpVersion: "2", ...options }) };
}

const client = new Client(await import(join(modules, "@viamrobotics/sdk/dist/main.es.js")));
const connection = createConnection(socket);
const write = (line) => connection.write(`${JSON.stringify(line)}\n`);
write({ pid: process.pid });
createInterface({ input: connection }).on("line", (line) => answer(client, JSON.parse(line)).then(write));
connection.on("close", () => process.exit(0));
