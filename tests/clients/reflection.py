"""What a server says of its methods to a client that knows nothing of them: read as viam-server does with its remotes.

Only gRPC's reflection is used, and what it answers: no schema of Viam's that came with the SDK.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

import raw

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
# Of google.protobuf.MethodOptions: viam.common.v1.safety_heartbeat_monitored, a bool.
MONITORED = 84260


def ask(host, port, **question):
    """The files in one answer."""
    request = ServerReflectionRequest(**question).SerializeToString().hex()
    (answer,) = raw.call(host, port, REFLECTION, [request], [], 1)["messages"]
    answer = ServerReflectionResponse.FromString(bytes.fromhex(answer))
    if answer.HasField("error_response"):
        raise LookupError(f"{question}: {answer.error_response.error_message}")
    return [descriptor_pb2.FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]


def pool_of(host, port, symbol):
    """Everything that a symbol's file needs."""
    files, pool, added = {}, descriptor_pool.DescriptorPool(), set()
    wanted = ask(host, port, file_containing_symbol=symbol)
    while wanted:
        file = wanted.pop()
        if file.name in files:
            continue
        files[file.name] = file
        for name in file.dependency:
            if name not in files:
                wanted += ask(host, port, file_by_filename=name)

    def add(name):
        if name not in added:
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


def monitored(host, port, service):
    """The methods of a service that are to end with their client's heartbeats."""
    pool = pool_of(host, port, service)
    try:
        options = pool.FindMessageTypeByName("google.protobuf.MethodOptions")
        extension = pool.FindExtensionByNumber(options, MONITORED)
    except KeyError:
        return []  # The server knows of no such option.
    kind = message_factory.GetMessageClass(options)
    methods = pool.FindServiceByName(service).methods
    return [m.name for m in methods if kind.FromString(m.GetOptions().SerializeToString()).Extensions[extension]]
