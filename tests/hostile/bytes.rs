//! Any bytes at all: as a token, as the file that a token or a name leads to, as the words of an object in use. A fuzzer chooses them
//! (`fuzz/`), or a fixed set does. What must not be, panics.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr;

use tine::ffi::handing_on::tine_token_t;
use tine::ffi::status::TINE_OK;

use super::objects::{self, KINDS, Kind};
use super::support::host;

/// A panic that was caught is a crash that was hidden.
const TINE_EPANIC: i32 = -6;
const LOWEST_STATUS: i32 = -33;
const HIGHEST_STATUS: i32 = 2;

/// What a call may answer.
pub fn is_status(status: i32) -> bool {
    (LOWEST_STATUS..=HIGHEST_STATUS).contains(&status) && status != TINE_EPANIC
}

/// A name, and what it makes of any bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 3] = [("token", token), ("head", head), ("words", words)];

/// Takes what it needs off the front; zeros once there is no more.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn half(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    /// A number that means something, or any.
    fn word(&mut self) -> u32 {
        // SAFETY: no arguments.
        let own = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        match self.byte() % 12 {
            0 => 0,
            1 => 1,
            2 => u32::MAX,
            3 => 1 << 31,
            4 => own,
            5 => own | 1 << 31,
            6 => own | 1 << 30,
            7 => self.byte().into(),
            8 => 1 << (self.byte() % 32),
            9 => self.half() as u32,
            _ => u32::from_ne_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check(what: &str, status: i32) {
    assert!(is_status(status), "{what} answers {status}");
}

/// The bytes of a token: those of a good one, some of them replaced, or any.
pub fn token(data: &[u8]) {
    let mut input = Input(data);
    let object = Sample::new(input.byte());
    let mut bytes = object.token.bytes;
    if input.byte() % 4 == 0 {
        bytes.iter_mut().skip(4).for_each(|byte| *byte = input.byte());
    }
    while !input.is_empty() {
        bytes[usize::from(input.byte()) % bytes.len()] = input.byte();
    }
    attach_all(&tine_token_t { bytes });
}

/// The file that a token leads to and that has a name: a copy of a good one, some of its words replaced, of any length.
pub fn head(data: &[u8]) {
    let mut input = Input(data);
    let object = Sample::new(input.byte());
    let mut content = object.content();
    let length = match input.byte() % 4 {
        0 => input.half(),
        _ => content.len(),
    };
    content.resize(length, 0);
    while !input.is_empty() {
        // The first words are what is looked at first.
        let at = match input.byte() % 3 {
            0 => usize::from(input.byte()),
            _ => input.half(),
        };
        let word = input.word();
        if let Some(bytes) = content.get_mut(at * 4..at * 4 + 4) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }
    let file = new_memfd(&content);
    attach_all(&object.token_of(&file));
    let name = objects::name_of("queue");
    objects::remove_names();
    std::fs::write(objects::path_of(&name), &content).expect("/dev/shm is writable");
    for (what, open) in objects::OPEN {
        check(what, open(&name));
    }
    objects::remove_names();
}

/// The words of an object that is in use, replaced before and between calls.
pub fn words(data: &[u8]) {
    let mut input = Input(data);
    let kind = &KINDS[usize::from(input.byte()) % KINDS.len()];
    let before = host::shared_mappings();
    let object = (kind.new)();
    for (_, call) in kind.before {
        // What was written over in the objects before this one may be near.
        call(object);
    }
    let mappings: Vec<_> = host::shared_mappings().into_iter().filter(|mapping| !before.contains(mapping)).collect();
    // An object that shares a slab with others has none of its own.
    let mappings = if mappings.is_empty() { before } else { mappings };
    let mut calls = calls_in_time(kind).cycle();
    let mut written = Vec::new();
    for _ in 0..24 {
        for _ in 0..input.byte() % 4 {
            let Some(mapping) = mappings.get(usize::from(input.byte()) % mappings.len().max(1)) else { break };
            let words = (mapping.end - mapping.start) / 4;
            let at = match input.byte() % 3 {
                0 => usize::from(input.byte()),
                _ => input.half(),
            };
            let word = input.word();
            let at = mapping.start + at % words * 4;
            // SAFETY: a word of a writable mapping that stays as long as the object; whoever shares it expects any bytes.
            let before = unsafe { ptr::replace(at as *mut u32, word) };
            written.push((at, before));
        }
        if let Some((name, call)) = calls.next() {
            check(name, call(object));
        }
        if input.is_empty() {
            break;
        }
    }
    (kind.free)(object);
    // The objects that come next are made where they find zeros.
    let left: Vec<_> = host::shared_mappings().into_iter().filter(|mapping| mappings.contains(mapping)).collect();
    for (at, before) in written.into_iter().rev() {
        if left.iter().any(|mapping| (mapping.start..mapping.end).contains(&at)) {
            // SAFETY: a word of a mapping that is still there.
            unsafe { ptr::write_volatile(at as *mut u32, before) };
        }
    }
}

/// Without those that no timeout bounds.
fn calls_in_time(kind: &Kind) -> impl Iterator<Item = &'static objects::Call> + Clone {
    let calls: &'static [objects::Call] = kind.calls;
    calls.iter().filter(|(name, _)| objects::takes_timeout(name))
}

fn attach_all(token: &tine_token_t) {
    for (what, attach) in objects::ATTACH {
        check(what, attach(token));
    }
}

fn new_memfd(content: &[u8]) -> File {
    // SAFETY: a string, plain numbers; a fresh descriptor.
    let file = unsafe {
        let fd = libc::memfd_create(c"tine:any".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    file.write_all_at(content, 0).expect("a memfd is writable");
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
    file
}

/// Some object, and its token.
struct Sample {
    kind: usize,
    object: *mut std::ffi::c_void,
    token: tine_token_t,
}

impl Sample {
    fn new(kind: u8) -> Sample {
        let kind = usize::from(kind) % objects::SAMPLES.len();
        let (new, hand, _) = objects::SAMPLES[kind];
        let (object, mut token) = (new(), tine_token_t { bytes: [0; 32] });
        assert_eq!(hand(object, &mut token), TINE_OK);
        Sample { kind, object, token }
    }

    /// The number at this place of the token.
    fn number(&self, at: usize) -> u32 {
        let bytes = self.token.bytes;
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// Of the whole file, or as much of it as says what it is.
    fn content(&self) -> Vec<u8> {
        let file = File::open(format!("/proc/self/fd/{}", self.number(8))).expect("the token's descriptor is ours");
        let length = file.metadata().expect("it is open").len().min(64 << 10);
        let mut content = vec![0; length as usize];
        file.read_exact_at(&mut content, 0).expect("it is so long");
        content
    }

    /// A token as if it were of that file.
    fn token_of(&self, file: &File) -> tine_token_t {
        let place = if self.token.bytes[3] & 0x80 == 0 { self.number(20) } else { 32 };
        // SAFETY: plain numbers.
        unsafe { libc::lseek(file.as_raw_fd(), i64::from(place) * 8, libc::SEEK_SET) };
        let mut token = self.token;
        token.bytes[8..12].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        token.bytes[24..].copy_from_slice(&file.metadata().expect("it is open").ino().to_ne_bytes());
        token
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        objects::SAMPLES[self.kind].2(self.object);
    }
}
