"""A server behind Lanyard that is made with gRPC's own library, with its defaults: it counts the PINGs it gets, and hangs
up on who sends more than two without a call that brings data.

Its one motor drives nothing: what is tested with it is the connection.
"""

import asyncio
import threading
import time
from concurrent import futures

from viam.proto.common import ResourceName
from viam.proto.component.motor import (
    GoForRequest,
    GoForResponse,
    SetPowerRequest,
    SetPowerResponse,
    StopRequest,
    StopResponse,
)
from viam.proto.robot import ResourceNamesRequest, ResourceNamesResponse, StopAllRequest, StopAllResponse

MOTOR, ROBOT = "viam.component.motor.v1.MotorService", "viam.robot.v1.RobotService"


class Server:
    """What the requests of the test do."""

    def __init__(self):
        self.told, self.server, self.halt = [], None, threading.Event()

    def note(self, did):
        self.told.append({"at": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "did": did})

    def set_power(self, request, context):
        self.note("set_power")
        return SetPowerResponse()

    def go_for(self, request, context):
        """Takes as many seconds as it is to make revolutions."""
        self.note("go_for")
        self.halt.clear()
        over = threading.Event()
        context.add_callback(over.set)
        end = time.monotonic() + request.revolutions
        while time.monotonic() < end and not self.halt.is_set() and not over.is_set():
            time.sleep(0.02)
        self.note("cancelled" if over.is_set() else "arrived")
        return GoForResponse()

    def stop(self, request, context):
        self.halt.set()
        self.note("stop")
        return StopResponse()

    def stop_all(self, request, context):
        self.halt.set()
        self.note("stop_all")
        return StopAllResponse()

    def names(self, request, context):
        name = ResourceName(namespace="rdk", type="component", subtype="motor", name="motor1")
        return ResourceNamesResponse(resources=[name])

    async def serve(self, port):
        # Here: its threads do not survive the fork that made this process.
        import grpc

        def handler(act, request, response):
            return grpc.unary_unary_rpc_method_handler(act, request.FromString, response.SerializeToString)

        services = {
            MOTOR: {
                "SetPower": handler(self.set_power, SetPowerRequest, SetPowerResponse),
                "GoFor": handler(self.go_for, GoForRequest, GoForResponse),
                "Stop": handler(self.stop, StopRequest, StopResponse),
            },
            ROBOT: {
                "ResourceNames": handler(self.names, ResourceNamesRequest, ResourceNamesResponse),
                "StopAll": handler(self.stop_all, StopAllRequest, StopAllResponse),
            },
        }

        def start():
            self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
            for service, methods in services.items():
                generic = grpc.method_handlers_generic_handler(service, methods)
                self.server.add_generic_rpc_handlers((generic,))
            self.server.add_insecure_port(f"127.0.0.1:{port}")
            self.server.start()

        await asyncio.to_thread(start)

    async def notes(self):
        """What the motor was told."""
        return self.told
