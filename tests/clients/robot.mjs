// What a client that runs the unmodified TypeScript SDK does when it is told, in Node and in a browser alike.
//
// A request is {"number": N, "do": NAME, ...}; its reply carries the same number and either "value" or "error" (with the
// gRPC status and message where there is one), and how long it took: as with viam_client.py.

/** gRPC's names of its codes, by number. */
const CODES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

/** What the requests do. The SDK opens no session. Nothing is retried here. */
export class Client {
  robot = undefined;
  driving = [];

  constructor(sdk) {
    this.sdk = sdk;
  }

  /** The SDK dials directly only hosts with "local" in their name. */
  async connect({ address }) {
    const port = address.split(":").pop();
    this.robot = await new this.sdk.RobotClient().dial({ host: `http://localhost:${port}`, noReconnect: true });
  }

  motor(name) {
    return new this.sdk.MotorClient(this.robot, name);
  }

  base(name) {
    return new this.sdk.BaseClient(this.robot, name);
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

  /** As a program does that awaits nothing: commands and a stop at once. Returns how the stop was answered. */
  async burst({ name, powers }) {
    const motor = this.motor(name);
    const commands = powers.map((power) => motor.setPower(power));
    const stop = motor.stop();
    // Those that a newer one has replaced are refused.
    await Promise.allSettled(commands);
    await stop;
    return "OK";
  }

  async go_for({ name, rpm, revolutions }) {
    await this.motor(name).goFor(rpm, revolutions);
  }

  async stop({ name }) {
    this.driving.forEach((drive) => clearInterval(drive.timer));
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

/** Carries out one request; returns its reply. */
export async function answer(client, { number, do: name, ...request }) {
  const reply = { number };
  const start = performance.now();
  try {
    reply.value = (await client[name](request)) ?? null;
  } catch (error) {
    const message = error.rawMessage ?? String(error);
    reply.error = { kind: error.constructor.name, status: CODES[error.code] ?? null, message };
  }
  reply.seconds = (performance.now() - start) / 1000;
  return reply;
}
