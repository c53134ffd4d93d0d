// One client of the robot: the unmodified TypeScript SDK in Node, told what to do line by line, as viam_client.py is.
//
//     node viam_client.mjs FOLDER_WITH_NODE_MODULES UNIX_SOCKET
//
// Over gRPC-web (the SDK's own way, by fetch) or, with the transport "grpc", over native gRPC. The SDK opens no session,
// neither way. Nothing is retried, and reconnecting is left to the SDK.

import { setDefaultResultOrder } from "node:dns";
import { createRequire } from "node:module";
import { createConnection } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [folder, socket] = process.argv.slice(2);
const modules = join(folder, "node_modules");
const VIAM = await import(join(modules, "@viamrobotics/sdk/dist/main.es.js"));
const { createGrpcTransport } = createRequire(join(modules, "x"))("@connectrpc/connect-node");
const { Code } = createRequire(join(modules, "x"))("@connectrpc/connect");

// The SDK dials directly only hosts with "local" in their name.
setDefaultResultOrder("ipv4first");

/** What the requests do. */
class Client {
  robot = undefined;
  driving = [];

  async connect({ address, transport }) {
    if (transport === "grpc") {
      globalThis.VIAM = { GRPC_TRANSPORT_FACTORY: (options) => createGrpcTransport({ httpVersion: "2", ...options }) };
    }
    const port = address.split(":").pop();
    this.robot = await new VIAM.RobotClient().dial({ host: `http://localhost:${port}`, noReconnect: true });
  }

  motor(name) {
    return new VIAM.MotorClient(this.robot, name);
  }

  base(name) {
    return new VIAM.BaseClient(this.robot, name);
  }

  async resource_names() {
    const names = await this.robot.resourceNames();
    return names.map((n) => `${n.namespace}:${n.type}:${n.subtype}/${n.name}`);
  }

  async set_power({ name, power }) {
    await this.motor(name).setPower(power);
  }

  /** As a page with a joystick does it: the command again and again. */
  async keep_driving({ name, power, every }) {
    const drive = { failed: undefined };
    await this.motor(name).setPower(power);
    const again = () => this.motor(name).setPower(power).catch((error) => (drive.failed ??= String(error)));
    drive.timer = setInterval(again, every * 1000);
    this.driving.push(drive);
  }

  async failures() {
    return this.driving.flatMap((drive) => drive.failed ?? []);
  }

  async let_go() {
    this.driving.forEach((drive) => clearInterval(drive.timer));
    this.driving = [];
  }

  async go_for({ name, rpm, revolutions }) {
    await this.motor(name).goFor(rpm, revolutions);
  }

  async stop({ name }) {
    await this.motor(name).stop();
  }

  async is_moving({ name }) {
    return await this.motor(name).isMoving();
  }

  async is_powered({ name }) {
    return await this.motor(name).isPowered();
  }

  async get_position({ name }) {
    return await this.motor(name).getPosition();
  }

  async base_set_velocity({ name, forward, turn = 0 }) {
    await this.base(name).setVelocity({ x: 0, y: forward, z: 0 }, { x: 0, y: 0, z: turn });
  }

  async stop_all() {
    await this.robot.stopAll();
  }

  async operations() {
    const operations = await this.robot.getOperations();
    return operations.map(({ id, method, sessionId }) => ({ id, method, session: sessionId ?? null }));
  }

  async cancel_operation({ id }) {
    await this.robot.cancelOperation(id);
  }

  async block_for_operation({ id }) {
    await this.robot.blockForOperation(id);
  }

  async session() {
    return this.robot.sessionId;
  }

  async version() {
    const { platform } = await this.robot.getVersion();
    return platform;
  }
}

/** FAILED_PRECONDITION of FailedPrecondition; one of gRPC's names is spelt otherwise there. */
const upper = (name) => name.replace("Canceled", "Cancelled").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();

/** Carries out one request and writes its reply. */
async function answer(client, { number, do: name, ...request }, connection) {
  const reply = { number };
  const start = performance.now();
  try {
    reply.value = (await client[name](request)) ?? null;
  } catch (error) {
    const status = typeof error.code === "number" ? upper(Code[error.code]) : null;
    reply.error = { kind: error.constructor.name, status, message: error.rawMessage ?? String(error) };
  }
  reply.seconds = (performance.now() - start) / 1000;
  connection.write(`${JSON.stringify(reply)}\n`);
}

const client = new Client();
const connection = createConnection(socket);
connection.write(`${JSON.stringify({ pid: process.pid })}\n`);
createInterface({ input: connection }).on("line", (line) => answer(client, JSON.parse(line), connection));
connection.on("close", () => process.exit(0));
