"""hoprd's session API as its Python SDK (hoprd_sdk 2.2.0-rc.1) uses it: the same bytes, without the SDK.

That one is in no registry and has no licence. What it sends is recorded (reference: vectors/hopr_clients.txt), and
`tests/vcan/tunnel_client.rs` holds this against the recording.
"""

import http.client
import json

# Like the programs around hoprd that give up first.
TIMEOUT = 1
# Any peer will do: here is no network of hoprd's.
DESTINATION = "12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33"


def headers_of(method, token):
    """In the SDK's order, which is not the same for all methods."""
    accept, agent = {"Accept": "application/json"}, {"User-Agent": "Swagger-Codegen/2.2.0-rc.1/python"}
    kind = {"Content-Type": "application/json"}
    key = {} if token is None else {"X-Auth-Token": token}
    return accept | kind | agent | key if method == "POST" else accept | agent | key | kind


def request(address, method, path, body=None, token=None, source=None, timeout=TIMEOUT):
    """One request; returns status and body, read as JSON where it is some."""
    host, port = address.rsplit(":", 1)
    origin = None if source is None else (source, 0)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout, source_address=origin)
    try:
        content = None if body is None else json.dumps(body)
        # The SDK sends an object with DELETE, which has no use for one.
        content = "{}" if method == "DELETE" else content
        connection.request(method, path, content, headers_of(method, token))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    try:
        return {"status": response.status, "body": json.loads(text) if text else None}
    except ValueError:
        return {"status": response.status, "body": text}


def create(address, protocol, target, listen_host=None, capabilities=None, hops=0, **options):
    """`SessionApi.create_client`"""
    body = {} if capabilities is None else {"capabilities": capabilities}
    body["destination"] = DESTINATION
    if listen_host is not None:
        body["listenHost"] = listen_host
    body |= {"path": {"Hops": hops}, "target": target}
    return request(address, "POST", f"/api/v3/session/{protocol}", body, **options)


def listed(address, protocol, **options):
    """`SessionApi.list_clients`"""
    return request(address, "GET", f"/api/v3/session/{protocol}", **options)


def close(address, protocol, ip, port, **options):
    """`SessionApi.close_client`; the SDK encodes whatever is no letter, digit or `_.-`."""
    encoded = ip.replace(":", "%3A")
    return request(address, "DELETE", f"/api/v3/session/{protocol}/{encoded}/{port}", **options)
