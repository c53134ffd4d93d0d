"""Kortex's frames: four words of bit fields and a payload, the same in both generations and over every transport."""

from dataclasses import dataclass

from kortex_messages import CLASSES

REQUEST, RESPONSE, NOTIFICATION, PING, PONG = 1, 3, 5, 7, 8
VERSION = 1


@dataclass
class Frame:
    """A frame, taken apart."""

    kind: int
    uid: int = 0
    session: int = 0
    message: int = 0
    payload: bytes = b""
    device: int = 0
    error: int = 0
    sub_error: int = 0
    version: int = VERSION

    def pack(self):
        """The bytes. What belongs to no service has no version of it either."""
        service = 0 if self.kind in (PING, PONG) else VERSION << 28
        header = CLASSES["Header"](
            frame_info=self.version << 28
            | self.kind << 24
            | self.device << 16
            | self.error << 12
            | self.sub_error,
            message_info=self.session << 16 | self.message,
            service_info=service | self.uid,
            payload_info=len(self.payload),
        )
        return CLASSES["Frame"](header=header, payload=self.payload).SerializeToString()

    @classmethod
    def unpack(cls, data):
        """The frame in those bytes."""
        frame = CLASSES["Frame"].FromString(data)
        info, message = frame.header.frame_info, frame.header.message_info
        return cls(
            kind=info >> 24 & 0xF,
            uid=frame.header.service_info & 0x0FFFFFFF,
            session=message >> 16,
            message=message & 0xFFFF,
            payload=frame.payload,
            device=info >> 16 & 0xFF,
            error=info >> 12 & 0xF,
            sub_error=info & 0xFFF,
            version=info >> 28,
        )
