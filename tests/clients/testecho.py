"""Viam's test component, which the SDK has messages for but no class: registered with it as a component of one's own
would be. Its `EchoMultiple` is one of the monitored methods, and the only one that answers with a stream.
"""

from grpclib.client import Channel
from viam.components.component_base import ComponentBase
from viam.gen.component.testecho.v1 import testecho_grpc, testecho_pb2
from viam.resource.registry import Registry, ResourceRegistration
from viam.resource.rpc_service_base import ResourceRPCServiceBase
from viam.resource.types import API, RESOURCE_NAMESPACE_RDK, RESOURCE_TYPE_COMPONENT


class TestEcho(ComponentBase):
    """Says again what it is told, a letter at a time."""

    API = API(RESOURCE_NAMESPACE_RDK, RESOURCE_TYPE_COMPONENT, "testecho")

    async def echo_multiple(self, message):
        raise NotImplementedError

    async def stop(self, **_):
        raise NotImplementedError


class TestEchoService(testecho_grpc.UnimplementedTestEchoServiceBase, ResourceRPCServiceBase[TestEcho]):
    RESOURCE_TYPE = TestEcho

    async def EchoMultiple(self, stream):
        request = await stream.recv_message()
        for letter in await self.get_resource(request.name).echo_multiple(request.message):
            await stream.send_message(testecho_pb2.EchoMultipleResponse(message=letter))

    async def Stop(self, stream):
        request = await stream.recv_message()
        await self.get_resource(request.name).stop()
        await stream.send_message(testecho_pb2.StopResponse())


class TestEchoClient(TestEcho):
    def __init__(self, name: str, channel: Channel):
        self.client = testecho_grpc.TestEchoServiceStub(channel)
        super().__init__(name)

    async def echo_multiple(self, message):
        request = testecho_pb2.EchoMultipleRequest(name=self.name, message=message)
        return [answer.message for answer in await self.client.EchoMultiple(request)]

    async def stop(self, **_):
        await self.client.Stop(testecho_pb2.StopRequest(name=self.name))


Registry.register_api(ResourceRegistration(TestEcho, TestEchoService, TestEchoClient))
