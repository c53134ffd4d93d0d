//! The name of the resource that a call is for: field 1 of its first message, and nothing else of it.
//!
//! What was read to find it is kept and goes on unchanged, byte for byte.

use std::collections::VecDeque;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;

/// Largest first message that is looked into: gRPC's own default limit for messages.
const MOST_BYTES: usize = 4 << 20;
/// What comes before every message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Encodings that are read here, for [`Status`]es that refuse others.
const ENCODINGS: &str = "identity,gzip";

/// A body of which the beginning may have been read already.
#[derive(Debug)]
pub struct Replayed {
    head: VecDeque<Bytes>,
    rest: Body,
    kept: Option<Kept>,
}

/// What was read of a body, to be read once more.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Mutex<Transcript>>);

/// A body, as far as it was read.
#[derive(Debug)]
struct Transcript {
    chunks: VecDeque<Bytes>,
    /// How much more is kept.
    room: usize,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// There is more to come.
    Begun,
    /// It is all there.
    Whole,
    /// It has more than can be kept.
    Partial,
}

impl Kept {
    fn copy(&self) -> MutexGuard<'_, Transcript> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole body from its beginning; `None` when it was not all read, or is too long.
    #[must_use]
    pub fn again(&self) -> Option<Replayed> {
        let copy = self.copy();
        (copy.reach == Reach::Whole).then(|| Replayed::of(copy.chunks.clone(), Body::empty()))
    }
}

impl Transcript {
    fn note(&mut self, chunk: &Bytes) {
        match self.room.checked_sub(chunk.len()) {
            Some(room) => {
                self.room = room;
                self.chunks.push_back(chunk.clone());
            }
            None => self.reach = Reach::Partial,
        }
    }

    fn end(&mut self) {
        if self.reach == Reach::Begun {
            self.reach = Reach::Whole;
        }
    }
}

impl Replayed {
    /// A body that nobody has looked into.
    #[must_use]
    pub fn untouched(rest: Body) -> Self {
        Self::of(VecDeque::new(), rest)
    }

    const fn of(head: VecDeque<Bytes>, rest: Body) -> Self {
        Self { head, rest, kept: None }
    }

    /// Keeps what is read of it from now on, if that is no more than `most` bytes.
    pub fn keep(&mut self, most: usize) -> Kept {
        let copy = Transcript { chunks: VecDeque::new(), room: most, reach: Reach::Begun };
        let kept = Kept(Arc::new(Mutex::new(copy)));
        self.kept = Some(kept.clone());
        kept
    }
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = match self.head.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        };
        if let Some(kept) = &self.kept {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(chunk) = frame.data_ref() {
                        kept.copy().note(chunk);
                    }
                    if http_body::Body::is_end_stream(&*self) {
                        kept.copy().end();
                    }
                }
                Poll::Ready(None) => kept.copy().end(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && http_body::Body::is_end_stream(&self.rest)
    }

    fn size_hint(&self) -> SizeHint {
        if self.head.is_empty() { http_body::Body::size_hint(&self.rest) } else { SizeHint::default() }
    }
}

/// Reads as much of a call's body as its first message takes. Returns the name in it, empty when there is none,
/// and the whole body.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED for a message that is too long, UNIMPLEMENTED for one in an unknown encoding,
/// INVALID_ARGUMENT for one that is no protobuf, CANCELLED when the client went away.
pub async fn name(headers: &HeaderMap, mut body: Body) -> Result<(String, Replayed), Status> {
    let mut head = VecDeque::new();
    let mut read = 0;
    let mut wanted = PREFIX;
    let mut prefix = None;
    loop {
        if read >= wanted {
            match prefix {
                None => {
                    let start = Prefix::parse(&head)?;
                    wanted = PREFIX + start.length;
                    prefix = Some(start);
                    continue;
                }
                Some(Prefix { compressed, length }) => {
                    let message = gather(&head, PREFIX, length);
                    let name = if compressed {
                        name_in(&decompressed(headers, &message)?)
                    } else {
                        name_in(&message)
                    };
                    return Ok((name?, Replayed::of(head, body)));
                }
            }
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    read += data.len();
                    head.push_back(data);
                }
            }
            Some(Err(error)) => return Err(error),
            // Without a whole message there is nothing to be moved; the upstream says what it thinks of it.
            None => return Ok((String::new(), Replayed::of(head, Body::empty()))),
        }
    }
}

/// What stands before a message.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    compressed: bool,
    length: usize,
}

impl Prefix {
    fn parse(head: &VecDeque<Bytes>) -> Result<Self, Status> {
        let bytes = gather(head, 0, PREFIX);
        let mut rest = &bytes[..];
        let compressed = match rest.get_u8() {
            0 => false,
            1 => true,
            flag => {
                return Err(Status::invalid_argument(format!("a message begins with {flag}, not 0 or 1")));
            }
        };
        let length = usize::try_from(rest.get_u32()).unwrap_or(usize::MAX);
        if length > MOST_BYTES { Err(too_long()) } else { Ok(Self { compressed, length }) }
    }
}

fn too_long() -> Status {
    Status::resource_exhausted(format!(
        "the first message of a call that moves something may have {MOST_BYTES} bytes, not more"
    ))
}

/// `length` bytes after the first `skip`.
fn gather(head: &VecDeque<Bytes>, skip: usize, length: usize) -> Bytes {
    // A message that lies in one piece, as nearly all do, is not copied.
    if let Some(first) = head.front()
        && first.len() >= skip + length
    {
        return first.slice(skip..skip + length);
    }
    let bytes = head.iter().flat_map(|chunk| chunk.iter().copied());
    bytes.skip(skip).take(length).collect()
}

fn decompressed(headers: &HeaderMap, message: &[u8]) -> Result<Vec<u8>, Status> {
    match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
        Some(b"gzip") => {
            let mut text = Vec::new();
            let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
            flate2::read::GzDecoder::new(message)
                .take(most + 1)
                .read_to_end(&mut text)
                .map_err(|error| Status::invalid_argument(format!("a message is no gzip: {error}")))?;
            if text.len() > MOST_BYTES { Err(too_long()) } else { Ok(text) }
        }
        Some(b"identity") | None => {
            Err(Status::internal("a message is said to be compressed, and the call names no encoding"))
        }
        Some(other) => {
            let mut status = Status::unimplemented(format!(
                "calls that move something are looked into, and encoding \"{}\" is not known here; use one of \
                 {ENCODINGS}",
                String::from_utf8_lossy(other)
            ));
            status
                .metadata_mut()
                .insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static(ENCODINGS));
            Err(status)
        }
    }
}

/// Field 1 of a message as text. The last one counts, as everywhere in protobuf.
fn name_in(message: &[u8]) -> Result<String, Status> {
    let wrong = || Status::invalid_argument("a message is no protobuf, or the name in it no text");
    let mut name: &[u8] = &[];
    let mut fields = Fields { rest: message };
    while let Some((number, value)) = fields.next().ok_or_else(wrong)? {
        if let (1, Some(value)) = (number, value) {
            name = value;
        }
    }
    String::from_utf8(name.to_vec()).map_err(|_| wrong())
}

/// Goes through a message of protobuf, field by field.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's number, and its bytes where it has some.
type Field<'a> = (u64, Option<&'a [u8]>);

/// Deepest nesting of groups, as in protobuf's own parsers.
const DEEPEST: usize = 100;

impl<'a> Fields<'a> {
    /// The next field, `Some(None)` at the end; `None` for what is no protobuf.
    fn next(&mut self) -> Option<Option<Field<'a>>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let (number, kind) = self.tag()?;
        let value = self.value(number, kind, 0)?;
        Some(Some((number, value)))
    }

    fn tag(&mut self) -> Option<(u64, u64)> {
        let tag = self.varint()?;
        // Numbers have 29 bits, and there is no field 0.
        let number = tag >> 3;
        (1..1 << 29).contains(&number).then_some((number, tag & 7))
    }

    fn value(&mut self, number: u64, kind: u64, depth: usize) -> Option<Option<&'a [u8]>> {
        match kind {
            0 => {
                self.varint()?;
            }
            1 => drop(self.take(8)?),
            2 => {
                let length = self.varint()?;
                return self.take(usize::try_from(length).ok()?).map(Some);
            }
            3 if depth < DEEPEST => loop {
                match self.tag()? {
                    (end, 4) if end == number => break,
                    (_, 4) => return None,
                    (number, kind) => self.value(number, kind, depth + 1)?,
                };
            },
            5 => drop(self.take(4)?),
            _ => return None,
        }
        Some(None)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Body, Bytes, HeaderMap, MOST_BYTES, Replayed, name, name_in};
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::{Code, Status};

    /// Field 1, text.
    fn named(name: &str) -> Vec<u8> {
        [&[0x0A, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Body {
        let pieces: Vec<_> = bytes
            .chunks(size)
            .map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        Body::new(StreamBody::new(tokio_stream::iter(pieces)))
    }

    async fn all(body: Replayed) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn the_name_is_found_and_every_byte_goes_on_however_it_came() {
        let first = [named("arm1"), vec![0x12, 2, 7, 7], vec![0x18, 0x96, 1]].concat();
        let bytes = [framed(0, &first), framed(0, &named("arm2")), vec![9; 40]].concat();
        for size in [1, 2, 3, 5, 6, 10, 64, 1000] {
            let (found, body) = name(&HeaderMap::new(), in_pieces(&bytes, size)).await.unwrap();
            assert_eq!(found, "arm1", "{size}");
            assert_eq!(all(body).await, bytes, "{size}");
        }
    }

    #[tokio::test]
    async fn a_stream_is_not_kept_waiting_for_more_than_its_first_message() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let first = framed(0, &named("arm1"));
        sender.send(Ok::<_, Status>(Frame::data(Bytes::from(first)))).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let (found, _body) = name(&HeaderMap::new(), Body::new(StreamBody::new(stream))).await.unwrap();
        assert_eq!(found, "arm1");
    }

    #[tokio::test]
    async fn gzip_is_read_and_other_encodings_are_refused() {
        let mut zipper = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        zipper.write_all(&named("base1")).unwrap();
        let bytes = framed(1, &zipper.finish().unwrap());
        let with = |encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-encoding", encoding.parse().unwrap());
            headers
        };
        let (found, body) = name(&with("gzip"), in_pieces(&bytes, 4)).await.unwrap();
        assert_eq!(found, "base1");
        assert_eq!(all(body).await, bytes);

        let refused = name(&with("zstd"), in_pieces(&bytes, 4)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(refused.metadata().get("grpc-accept-encoding").unwrap(), "identity,gzip");
        assert_eq!(name(&HeaderMap::new(), in_pieces(&bytes, 4)).await.unwrap_err().code(), Code::Internal);
        // An encoding that the message does not use harms nothing.
        let plain = framed(0, &named("base1"));
        assert_eq!(name(&with("zstd"), in_pieces(&plain, 4)).await.unwrap().0, "base1");
    }

    #[tokio::test]
    async fn a_message_without_end_takes_no_memory() {
        let mut endless = vec![0];
        endless.extend(u32::MAX.to_be_bytes());
        let refused = name(&HeaderMap::new(), in_pieces(&endless, 5)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);

        let mut zipper = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        zipper.write_all(&vec![0; 2 * MOST_BYTES]).unwrap();
        let bomb = framed(1, &zipper.finish().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", "gzip".parse().unwrap());
        let refused = name(&headers, in_pieces(&bomb, 1000)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn half_a_message_is_no_name() {
        for bytes in [vec![], vec![0, 0, 0], framed(0, &named("arm1"))[..8].to_vec()] {
            let (found, body) = name(&HeaderMap::new(), in_pieces(&bytes, 3)).await.unwrap();
            assert_eq!(found, "");
            assert_eq!(all(body).await, bytes);
        }
    }

    #[test]
    fn the_last_name_counts_and_everything_else_is_passed_over() {
        let group = [vec![0x23, 0x0A, 1, b'x', 0x2B, 0x2C, 0x24], named("b")].concat();
        let fixed = [vec![0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4], named("c")].concat();
        // Field 1 as a number is another field to a parser that expects a text.
        let number = [named("d"), vec![0x08, 5]].concat();
        for (message, expected) in [
            (vec![], ""),
            ([named("a"), named("b")].concat(), "b"),
            (group, "b"),
            (fixed, "c"),
            (number, "d"),
        ] {
            assert_eq!(name_in(&message).unwrap(), expected, "{message:?}");
        }
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        let deep = [vec![0x23; 200], vec![0x24; 200]].concat();
        for message in [
            vec![0x0A, 5, b'a'],
            vec![0x0A],
            vec![0x0A, 1, 0xFF],
            vec![0x00, 1],
            vec![0x80; 11],
            vec![0x24],
            vec![0x23, 0x2C],
            vec![0x0E, 1],
            deep,
        ] {
            assert_eq!(name_in(&message).unwrap_err().code(), Code::InvalidArgument, "{message:?}");
        }
    }
}
