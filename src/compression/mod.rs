//! The compressed protocol, without I/O: packets of packets, by zlib or zstd.
//!
//! Does not know: sockets, TLS, logins, sessions, or who has asked for compression. Each side of
//! the proxy has its own; the packets in between are the plain protocol's.
//!
//! Sources: protocol pages "Compression", "Compressed Packet Header"; the numbering of packets
//! inside is the servers' own (`net_serv.cc`), see [`numbers`].

use std::fmt;
use std::io;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

pub mod frames;
pub mod numbers;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// CLIENT_COMPRESS.
    Zlib,
    /// CLIENT_ZSTD_COMPRESSION_ALGORITHM, at this level.
    Zstd(u8),
}

/// Nearer to speed than to size: the servers' own level is 6.
const ZLIB_LEVEL: u32 = 3;
/// The highest level of zstd that a peer can make us work at: beyond, contexts grow to hundreds
/// of megabytes.
const ZSTD_LEVEL_MAX: u8 = 3;

/// The other side's compressed packets make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("compressed protocol: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// The machinery of both methods. A thread needs one: nothing is kept in it between two packets.
#[derive(Default)]
pub struct Codec {
    deflate: Option<Box<Compress>>,
    inflate: Option<Box<Decompress>>,
    zstd: Option<(u8, zstd::bulk::Compressor<'static>)>,
    unzstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

impl Codec {
    /// Appends the compressed form of `plain`; false, with nothing appended, when that is no
    /// shorter.
    pub(crate) fn compress(&mut self, method: Method, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let room = plain.len().saturating_sub(1);
        out.resize(before.saturating_add(room), 0);
        let to = out.get_mut(before..).unwrap_or_default();
        let length = match method {
            Method::Zlib => self.deflate(plain, to),
            Method::Zstd(level) => self.zstd_into(level.clamp(1, ZSTD_LEVEL_MAX), plain, to),
        };
        out.truncate(before.saturating_add(length.unwrap_or(0)));
        length.is_some()
    }

    /// Appends the plain form, which is `length` bytes long by the packet's header.
    ///
    /// # Errors
    /// When it is not, or the bytes are not compressed by this method.
    pub(crate) fn decompress(
        &mut self,
        method: Method,
        packed: &[u8],
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let before = out.len();
        out.resize(before.saturating_add(length), 0);
        let to = out.get_mut(before..).unwrap_or_default();
        let whole = match method {
            Method::Zlib => self.inflate(packed, to),
            Method::Zstd(_) => self.unzstd_into(packed, to),
        };
        match whole {
            true => Ok(()),
            false => {
                out.truncate(before);
                Err(Malformed("a packet that does not decompress to its declared length"))
            }
        }
    }

    fn deflate(&mut self, plain: &[u8], to: &mut [u8]) -> Option<usize> {
        let new = || Box::new(Compress::new(flate2::Compression::new(ZLIB_LEVEL), true));
        let deflate = self.deflate.get_or_insert_with(new);
        deflate.reset();
        let status = deflate.compress(plain, to, FlushCompress::Finish).ok()?;
        let length = usize::try_from(deflate.total_out()).ok()?;
        (status == Status::StreamEnd).then_some(length)
    }

    fn inflate(&mut self, packed: &[u8], to: &mut [u8]) -> bool {
        let inflate = self.inflate.get_or_insert_with(|| Box::new(Decompress::new(true)));
        inflate.reset(true);
        let status = inflate.decompress(packed, to, FlushDecompress::Finish);
        let used = usize::try_from(inflate.total_in()) == Ok(packed.len());
        let filled = usize::try_from(inflate.total_out()) == Ok(to.len());
        matches!(status, Ok(Status::StreamEnd)) && used && filled
    }

    fn zstd_into(&mut self, level: u8, plain: &[u8], to: &mut [u8]) -> Option<usize> {
        if self.zstd.as_ref().is_none_or(|(known, _)| *known != level) {
            let compressor = zstd::bulk::Compressor::new(i32::from(level)).ok()?;
            self.zstd = Some((level, compressor));
        }
        let (_, compressor) = self.zstd.as_mut()?;
        compressor.compress_to_buffer(plain, to).ok()
    }

    fn unzstd_into(&mut self, packed: &[u8], to: &mut [u8]) -> bool {
        if self.unzstd.is_none() {
            self.unzstd = zstd::bulk::Decompressor::new().ok();
        }
        let Some(decompressor) = self.unzstd.as_mut() else { return false };
        decompressor.decompress_to_buffer(packed, to).is_ok_and(|length| length == to.len())
    }
}
