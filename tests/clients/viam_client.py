"""One client of the robot: the unmodified viam-sdk, told what to do line by line.

A request is {"number": N, "do": NAME, ...}; its reply carries the same number and either "value" or
"error" (with the gRPC status and message where there is one), and how long it took. Requests run side
by side: one that hangs does not keep the next from starting.
"""

import asyncio
import json
import os
import ssl
import time
from datetime import timedelta

from grpclib import GRPCError
from viam.components.arm import Arm
from types import SimpleNamespace
from grpclib.client import Channel
from viam.components.base import Base, Vector3
from viam.components.button import Button
from viam.components.gantry import Gantry
from viam.components.gripper import Gripper
from viam.components.motor import Motor
from viam.components.servo import Servo
from viam.components.switch import Switch
from viam.proto.common import Pose
from viam.proto.component.arm import JointPositions
from viam.proto.component.motor import MotorServiceStub, SetPowerRequest
from viam.proto.robot import (
    GetOperationsRequest,
    GetSessionsRequest,
    RobotServiceStub,
    SendSessionHeartbeatRequest,
    StartSessionRequest,
)
from viam.proto.rpc.auth import AuthenticateRequest, AuthServiceStub
from viam.proto.rpc.auth import Credentials as Login
from viam.proto.rpc.webrtc.signaling import CallRequest, OptionalWebRTCConfigRequest, SignalingServiceStub
from viam.robot.client import RobotClient
from viam.rpc.dial import Credentials, DialOptions

import floods
import raw
import reflection
import rude
from testecho import TestEcho

COMPONENTS = {
    kind.API.resource_subtype: kind
    for kind in (Arm, Base, Button, Gantry, Gripper, Motor, Servo, Switch, TestEcho)
}


async def stream_trajectory(arm):
    """Two batches; the second is sent when the first has been answered."""
    answered = asyncio.Event()

    async def batches():
        yield [Arm.TrajectoryPoint(time=timedelta(0), positions=[0.0])]
        await answered.wait()
        yield [Arm.TrajectoryPoint(time=timedelta(seconds=1), positions=[1.0])]

    updates = 0
    async for _ in arm.move_through_joint_positions_streamed(batches()):
        updates += 1
        answered.set()
    return updates


# Every monitored method of Viam's.
MOVES = {
    "arm/MoveToPosition": lambda arm: arm.move_to_position(Pose(x=1)),
    "arm/MoveToJointPositions": lambda arm: arm.move_to_joint_positions(JointPositions(values=[1.0])),
    "arm/MoveThroughJointPositions": lambda arm: arm.move_through_joint_positions([JointPositions(values=[1.0])]),
    "arm/MoveThroughJointPositionsStreamed": stream_trajectory,
    "base/MoveStraight": lambda base: base.move_straight(100, 50.0),
    "base/Spin": lambda base: base.spin(90.0, 45.0),
    "base/SetPower": lambda base: base.set_power(Vector3(y=1), Vector3()),
    "base/SetVelocity": lambda base: base.set_velocity(Vector3(y=100), Vector3()),
    "button/Push": lambda button: button.push(),
    "gantry/MoveToPosition": lambda gantry: gantry.move_to_position([1.0], [1.0]),
    "gripper/Open": lambda gripper: gripper.open(),
    "gripper/Grab": lambda gripper: gripper.grab(),
    "gripper/GoToInputs": lambda gripper: gripper.go_to_inputs([1.0]),
    "motor/SetPower": lambda motor: motor.set_power(0.5),
    "motor/GoFor": lambda motor: motor.go_for(60.0, 1.0),
    "motor/GoTo": lambda motor: motor.go_to(60.0, 1.0),
    "motor/SetRPM": lambda motor: motor.set_rpm(60.0),
    "servo/Move": lambda servo: servo.move(30),
    "switch/SetPosition": lambda switch: switch.set_position(1),
    "testecho/EchoMultiple": lambda echo: echo.echo_multiple("abc"),
}


class Client:
    """What the requests do."""

    def __init__(self):
        self.robot = None
        self.address = None
        self.tasks = []

    # The SDK as its users use it.

    async def connect(self, address, sessions=True, webrtc=False, tls=False, key=None, trust=None, downgrade=False):
        """Connects; `webrtc` leaves the SDK's default way of dialling in place, `trust` is a file with the
        authority that the whole system trusts, `downgrade` tries TLS first and does without."""
        dial = DialOptions(insecure=not tls, disable_webrtc=not webrtc, allow_insecure_downgrade=downgrade)
        if key:
            dial.auth_entity, dial.credentials = key["id"], Credentials("api-key", key["secret"])
            # A refusal is final, and a test that expects one need not wait for two more.
            dial.initial_connection_attempts = 1
        if trust:
            os.environ["SSL_CERT_FILE"] = trust
        options = RobotClient.Options(dial_options=dial, disable_sessions=not sessions)
        self.robot = await RobotClient.at_address(address, options)
        self.address = address

    async def connect_bare(self, address):
        """Connects without the SDK's own first calls, in plain text: for calls that are to be refused."""
        host, port = address.rsplit(":", 1)
        self.robot = SimpleNamespace(_channel=Channel(host, int(port)))

    async def log_in(self, id, secret, type="api-key", keep=True):
        """Logs in by hand; the token goes with the calls to come if `keep`."""
        credentials = Login(type=type, payload=secret) if type else None
        stub = AuthServiceStub(self.robot._channel)
        request = AuthenticateRequest(entity=id, credentials=credentials)
        token = (await stub.Authenticate(request, metadata=self.metadata())).access_token
        if keep:
            self.robot._channel._metadata = {"authorization": f"Bearer {token}"}
        return token

    async def certificate(self, address):
        """The certificate that a new client is shown, in PEM."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))

    async def resource_names(self):
        return [f"{n.namespace}:{n.type}:{n.subtype}/{n.name}" for n in self.robot.resource_names]

    def motor(self, name):
        return Motor.from_robot(self.robot, name)

    def base(self, name):
        return Base.from_robot(self.robot, name)

    async def set_power(self, name, power):
        await self.motor(name).set_power(power)

    async def set_power_text(self, name, power_text):
        """For numbers that JSON does not have."""
        await self.motor(name).set_power(float(power_text))

    async def set_rpm(self, name, rpm):
        await self.motor(name).set_rpm(rpm)

    async def go_for(self, name, rpm, revolutions):
        await self.motor(name).go_for(rpm, revolutions)

    async def stop(self, name):
        await self.motor(name).stop()

    async def move(self, call, name):
        """Calls any monitored method of Viam's components, such as arm/MoveToPosition."""
        component = COMPONENTS[call.split("/")[0]].from_robot(self.robot, name)
        return await MOVES[call](component)

    async def stop_component(self, kind, name):
        await COMPONENTS[kind].from_robot(self.robot, name).stop()

    async def joystick(self, name, power, every):
        """As a program does that awaits nothing: the command again and again, whatever becomes of it."""

        async def one():
            try:
                await self.set_power(name, power)
            except GRPCError:
                pass  # A newer one has replaced it.

        async def drive():
            while True:
                self.tasks.append(asyncio.create_task(one()))
                await asyncio.sleep(every)

        self.driving = asyncio.create_task(drive())

    async def release_joystick(self, name):
        self.driving.cancel()
        await self.stop(name)

    async def paths_of(self, sent):
        """The methods that a client has called over a connection, in order, from the bytes that it has sent."""
        return raw.paths_of(bytes.fromhex(sent))

    async def is_moving(self, name):
        return await self.motor(name).is_moving()

    async def is_powered(self, name):
        return list(await self.motor(name).is_powered())

    async def get_position(self, name):
        return await self.motor(name).get_position()

    async def base_set_velocity(self, name, forward, turn=0.0):
        """`forward` in mm/s, `turn` in degrees per second."""
        await self.base(name).set_velocity(Vector3(x=0, y=forward, z=0), Vector3(x=0, y=0, z=turn))

    async def base_set_power(self, name, forward, turn=0.0):
        await self.base(name).set_power(Vector3(x=0, y=forward, z=0), Vector3(x=0, y=0, z=turn))

    async def base_stop(self, name):
        await self.base(name).stop()

    async def base_is_moving(self, name):
        return await self.base(name).is_moving()

    async def stop_all(self):
        await self.robot.stop_all()

    async def close(self):
        await self.robot.close()

    async def session(self):
        """The id the SDK holds; it forgets one that it was told has expired."""
        return self.robot._sessions_client._current_id

    async def operations(self):
        """The calls under way."""
        response = await self.service().GetOperations(GetOperationsRequest())
        return [{"id": o.id, "method": o.method, "session_id": o.session_id} for o in response.operations]

    async def sessions(self):
        """The robot's sessions, whoever has them."""
        response = await self.service().GetSessions(GetSessionsRequest())
        return [{"id": s.id, "remote": s.peer_connection_info.remote_address} for s in response.sessions]

    async def block(self, seconds, busy):
        """Does not give the event loop back, as programs do that sleep or compute."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not busy:
                time.sleep(end - time.monotonic())

    # The same calls with more control over them, through the SDK's own stubs.

    def service(self):
        return RobotServiceStub(self.robot._channel)

    def metadata(self, **more):
        """What the SDK sends along when it is given nothing else, and more."""
        return {**getattr(self.robot._channel, "_metadata", {}), **more}

    async def start_session(self, resume=""):
        response = await self.service().StartSession(StartSessionRequest(resume=resume), metadata=self.metadata())
        return {"id": response.id, "window": response.heartbeat_window.ToTimedelta().total_seconds()}

    async def heartbeat(self, id):
        await self.service().SendSessionHeartbeat(SendSessionHeartbeatRequest(id=id), metadata=self.metadata())

    async def set_power_as(self, name, power, session):
        """Uses a session id that need not be this client's; connect without sessions first."""
        stub = MotorServiceStub(self.robot._channel)
        metadata = self.metadata(**{"viam-sid": session}) if session else self.metadata()
        await stub.SetPower(SetPowerRequest(name=name, power_pct=power), metadata=metadata)

    async def beat_for_ever(self, sessions, every):
        """Keeps many sessions alive, their heartbeats spread over the time."""

        async def beat(id, delay):
            await asyncio.sleep(delay)
            while True:
                await self.heartbeat(id)
                await asyncio.sleep(every)

        for place, id in enumerate(sessions):
            self.tasks.append(asyncio.create_task(beat(id, every * place / len(sessions))))

    async def beats_that_failed(self):
        return sum(1 for task in self.tasks if task.done())

    async def start_many(self, count, together=50):
        """Starts sessions; returns the ids, and how often each error came."""
        ids, errors = [], {}

        async def start():
            try:
                ids.append((await self.start_session())["id"])
            except GRPCError as error:
                text = f"{error.status.name}: {error.message}"
                errors[text] = errors.get(text, 0) + 1

        while count > 0:
            await asyncio.gather(*(start() for _ in range(min(together, count))))
            count -= together
        return {"ids": ids, "errors": errors}

    async def slowest_heartbeat(self, id, count):
        """The longest that any of a row of heartbeats took, in seconds."""
        worst = 0.0
        for _ in range(count):
            start = time.monotonic()
            await self.heartbeat(id)
            worst = max(worst, time.monotonic() - start)
        return worst

    async def signalling(self, call):
        stub = SignalingServiceStub(self.robot._channel)
        if call == "OptionalWebRTCConfig":
            await stub.OptionalWebRTCConfig(OptionalWebRTCConfigRequest())
        else:
            async with stub.Call.open() as stream:
                await stream.send_message(CallRequest(sdp="none"), end=True)
                await stream.recv_message()

    async def raw(self, address, path, messages=(), metadata=(), answers=None):
        """Any call, by hand; needs no connection of the SDK."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread(raw.call, host, int(port), path, messages, metadata, answers)

    async def monitored(self, address, service):
        """The methods that the server's reflection marks as ending with their client's heartbeats."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread(reflection.monitored, host, int(port), service)

    async def burst(self, address, calls, gap=0.0):
        """Several calls over one connection, none of them awaited before all are sent."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread(raw.burst, host, int(port), calls, gap)

    async def misbehave(self, kind, address):
        """Talks to the server as no honest client would; returns what became of the connection."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread((rude.KINDS | floods.KINDS)[kind], host, int(port))


async def answer(client, request, writer):
    """Carries out one request and writes its reply."""
    number, do = request.pop("number"), request.pop("do")
    reply = {"number": number}
    start = time.monotonic()
    try:
        reply["value"] = await getattr(client, do)(**request)
    except GRPCError as error:
        reply["error"] = {"kind": "GRPCError", "status": error.status.name, "message": error.message}
    except Exception as error:  # whatever it is, the test wants to know
        status = getattr(error, "status", None)
        reply["error"] = {"kind": type(error).__name__, "status": status, "message": str(error)}
    reply["seconds"] = time.monotonic() - start
    writer.write(json.dumps(reply).encode() + b"\n")
    await writer.drain()


async def serve(connection, client):
    """Takes requests until the test hangs up."""
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=2**24)
    running = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(client, json.loads(line), writer))
        running.add(task)
        task.add_done_callback(running.discard)
