//! The protocol buffers.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Socket {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Open {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) session: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    pub(super) instance: u64,
    #[prost(uint32, tag = "3")]
    pub(super) attempt: u32,
    #[prost(string, tag = "4")]
    pub(super) service: String,
    #[prost(uint32, optional, tag = "5")]
    pub(super) flow: Option<u32>,
    #[prost(uint64, tag = "6")]
    pub(super) limit: u64,
    #[prost(message, optional, tag = "7")]
    pub(super) client: Option<Socket>,
    #[prost(message, optional, tag = "8")]
    pub(super) listener: Option<Socket>,
    /// In milliseconds.
    #[prost(uint32, optional, tag = "9")]
    pub(super) linger: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resume {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) session: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
    #[prost(message, optional, tag = "3")]
    pub(super) progress: Option<Accept>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Accept {
    #[prost(fixed64, tag = "1")]
    pub(super) instance: u64,
    #[prost(uint64, tag = "2")]
    pub(super) received: u64,
    #[prost(uint64, tag = "3")]
    pub(super) delivered: u64,
    #[prost(uint64, tag = "4")]
    pub(super) limit: u64,
    /// In milliseconds, as all times.
    #[prost(uint32, optional, tag = "5")]
    pub(super) paused: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    pub(super) linger: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refuse {
    #[prost(fixed64, tag = "1")]
    pub(super) instance: u64,
    #[prost(uint32, tag = "2")]
    pub(super) refusal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reset {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(fixed64, tag = "1")]
    pub(super) instance: u64,
    #[prost(bool, tag = "2")]
    pub(super) lists: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Offer {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) kind: u32,
    #[prost(string, optional, tag = "3")]
    pub(super) protocol: Option<String>,
}
