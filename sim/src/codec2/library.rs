//! libcodec2, loaded when it is asked for: the FreeDV raw-data modems behind a safe type.
//!
//! The only file with `unsafe`. [`Handle`] owns one `struct freedv`; every buffer the library writes is sized here from what the
//! library itself says it needs. Called by [`modem`](super::modem) alone.
#![expect(unsafe_code, reason = "a C library that is found at run time")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use libloading::Library;

/// Names the library goes by; the interface used here is the same in all of them.
const NAMES: [&str; 3] = ["libcodec2.so.1.0", "libcodec2.so.1.1", "libcodec2.so.1.2"];

type Raw = *mut c_void;

/// The functions used, as long as the process lives: the library is never unloaded.
struct Functions {
    open: unsafe extern "C" fn(c_int) -> Raw,
    close: unsafe extern "C" fn(Raw),
    set_frames_per_burst: unsafe extern "C" fn(Raw, c_int),
    bits_per_frame: unsafe extern "C" fn(Raw) -> c_int,
    frame_samples: unsafe extern "C" fn(Raw) -> c_int,
    preamble_samples: unsafe extern "C" fn(Raw) -> c_int,
    postamble_samples: unsafe extern "C" fn(Raw) -> c_int,
    wanted: unsafe extern "C" fn(Raw) -> c_int,
    sync: unsafe extern "C" fn(Raw) -> c_int,
    preamble: unsafe extern "C" fn(Raw, *mut i16) -> c_int,
    frame: unsafe extern "C" fn(Raw, *mut i16, *mut u8),
    postamble: unsafe extern "C" fn(Raw, *mut i16) -> c_int,
    receive: unsafe extern "C" fn(Raw, *mut u8, *mut i16) -> c_int,
    crc16: unsafe extern "C" fn(*mut u8, c_int) -> u16,
    _library: Library,
}

/// The library, or why it cannot be used; in words for an operator.
fn functions() -> Result<&'static Functions, String> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// Whether the library can be used; `Err` says what to install.
pub fn available() -> Result<(), String> {
    functions().map(|_| ())
}

fn load() -> Result<Functions, String> {
    // SAFETY: loading runs the library's initialisers; libcodec2 has none with effects.
    let found = NAMES.iter().find_map(|name| unsafe { Library::new(name) }.ok());
    let library = found.ok_or_else(|| "libcodec2 is not installed: it is Debian's package libcodec2-1.0".to_owned())?;
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the signature is that of freedv_api.h in libcodec2 1.0 to 1.2.
            *unsafe { library.get($name) }.map_err(|e| format!("this libcodec2 lacks a function: {e}"))?
        };
    }
    Ok(Functions {
        open: function!(b"freedv_open\0"),
        close: function!(b"freedv_close\0"),
        set_frames_per_burst: function!(b"freedv_set_frames_per_burst\0"),
        bits_per_frame: function!(b"freedv_get_bits_per_modem_frame\0"),
        frame_samples: function!(b"freedv_get_n_tx_modem_samples\0"),
        preamble_samples: function!(b"freedv_get_n_tx_preamble_modem_samples\0"),
        postamble_samples: function!(b"freedv_get_n_tx_postamble_modem_samples\0"),
        wanted: function!(b"freedv_nin\0"),
        sync: function!(b"freedv_get_sync\0"),
        preamble: function!(b"freedv_rawdatapreambletx\0"),
        frame: function!(b"freedv_rawdatatx\0"),
        postamble: function!(b"freedv_rawdatapostambletx\0"),
        receive: function!(b"freedv_rawdatarx\0"),
        crc16: function!(b"freedv_gen_crc16\0"),
        _library: library,
    })
}

/// One modem of the library, transmitter and receiver.
pub(super) struct Handle {
    functions: &'static Functions,
    raw: NonNull<c_void>,
    frame_bytes: usize,
}

// SAFETY: a `struct freedv` holds all its state itself, and `&mut self` lets one thread at a time at it.
unsafe impl Send for Handle {}

impl Handle {
    /// Opens the modem with this number in freedv_api.h, one frame in each burst.
    pub(super) fn open(number: i32) -> Result<Self, String> {
        let functions = functions()?;
        // SAFETY: takes a number and gives a new object or null.
        let raw = NonNull::new(unsafe { (functions.open)(number) })
            .ok_or_else(|| format!("this libcodec2 has no FreeDV mode number {number}"))?;
        let mut handle = Self { functions, raw, frame_bytes: 0 };
        // SAFETY: `raw` is the live object this handle owns.
        let bits = unsafe {
            (functions.set_frames_per_burst)(handle.raw.as_ptr(), 1);
            (functions.bits_per_frame)(handle.raw.as_ptr())
        };
        handle.frame_bytes = usize::try_from(bits / 8).unwrap_or(0);
        if handle.frame_bytes < 8 {
            return Err(format!("libcodec2 states {bits} bits in a frame of mode {number}, which is no raw-data mode"));
        }
        Ok(handle)
    }

    /// Bytes of a frame, its two of checksum included.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Appends the samples of preamble, one frame and postamble.
    ///
    /// # Panics
    ///
    /// When `payload` is not two bytes shorter than a frame.
    pub(super) fn burst(&mut self, payload: &[u8], samples: &mut Vec<i16>) {
        assert_eq!(payload.len() + 2, self.frame_bytes, "a payload fills its frame");
        let (f, raw) = (self.functions, self.raw.as_ptr());
        let mut bytes = payload.to_vec();
        bytes.extend(self.crc(payload).to_be_bytes());
        // SAFETY: `raw` is live; each buffer is as long as the library says that call writes, `bytes` as long as it reads.
        unsafe {
            let n = (f.preamble_samples)(raw);
            extend(samples, n, |p| (f.preamble)(raw, p));
            let n = (f.frame_samples)(raw);
            extend(samples, n, |p| {
                (f.frame)(raw, p, bytes.as_mut_ptr());
                n
            });
            let n = (f.postamble_samples)(raw);
            extend(samples, n, |p| (f.postamble)(raw, p));
        }
    }

    /// How many samples [`Handle::receive`] takes next.
    pub(super) fn wanted(&self) -> usize {
        // SAFETY: `raw` is live.
        usize::try_from(unsafe { (self.functions.wanted)(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Whether it is synchronised to a frame.
    pub(super) fn synchronised(&self) -> bool {
        // SAFETY: `raw` is live.
        unsafe { (self.functions.sync)(self.raw.as_ptr()) != 0 }
    }

    /// Takes exactly [`Handle::wanted`] samples; gives the payload of a frame that ended in them and whose checksum held.
    ///
    /// # Panics
    ///
    /// When the number of samples is another.
    pub(super) fn receive(&mut self, samples: &mut [i16]) -> Option<Vec<u8>> {
        assert_eq!(samples.len(), self.wanted(), "the receiver says how many samples it takes");
        let mut bytes = vec![0; self.frame_bytes];
        // SAFETY: `raw` is live; the library reads `wanted` samples and writes at most one frame.
        let got = unsafe { (self.functions.receive)(self.raw.as_ptr(), bytes.as_mut_ptr(), samples.as_mut_ptr()) };
        if usize::try_from(got).ok() != Some(self.frame_bytes) {
            return None;
        }
        let checksum = bytes.split_off(self.frame_bytes - 2);
        (self.crc(&bytes).to_be_bytes() == checksum[..]).then_some(bytes)
    }

    fn crc(&self, bytes: &[u8]) -> u16 {
        let mut copy = bytes.to_vec();
        let length = c_int::try_from(copy.len()).unwrap_or(0);
        // SAFETY: reads `length` bytes of a buffer that is as long.
        unsafe { (self.functions.crc16)(copy.as_mut_ptr(), length) }
    }
}

/// Appends what `write` puts into a buffer of `n` samples; `write` says how many it wrote.
fn extend(samples: &mut Vec<i16>, n: c_int, write: impl FnOnce(*mut i16) -> c_int) {
    let start = samples.len();
    let room = usize::try_from(n).unwrap_or(0);
    samples.resize(start + room, 0);
    let written = write(samples[start..].as_mut_ptr());
    samples.truncate(start + usize::try_from(written).unwrap_or(0).min(room));
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `raw` is live and nobody uses it after this.
        unsafe { (self.functions.close)(self.raw.as_ptr()) }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle {{ {} bytes a frame }}", self.frame_bytes)
    }
}
