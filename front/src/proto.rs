//! The messages and service traits generated from `proto/`.

#[allow(clippy::all, clippy::pedantic, unused, reason = "generated code")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protocols.rs"));
}

pub use generated::lanyard::kortex::v1 as kortex;
pub use generated::lanyard::v1 as lanyard;
pub use generated::proto::rpc::v1 as rpc;
pub use generated::proto::rpc::webrtc::v1 as signaling;
pub use generated::viam::common::v1 as common;
pub use generated::viam::component::base::v1 as base;
pub use generated::viam::component::motor::v1 as motor;
pub use generated::viam::robot::v1 as robot;

/// All of `proto/` and what it imports, as a serialised `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use super::DESCRIPTORS;

    /// Fails if reflection does not tell which methods move something: viam-server as a client would then let a client of
    /// its own die unnoticed.
    #[test]
    fn monitored_methods_are_marked() {
        // Field 84260 as a varint, and true.
        const OPTION: [u8; 4] = [0xA0, 0x92, 0x29, 0x01];
        let marked = DESCRIPTORS.windows(OPTION.len()).filter(|bytes| *bytes == OPTION).count();
        assert_eq!(marked, 8, "the four of MotorService and the four of BaseService");
    }
}
