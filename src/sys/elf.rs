//! Which program and libraries this process has loaded, and whether an address is code of theirs.
//!
//! A pool's workers are copies of the process as it was when the pool was made. An address means the same function there only if it
//! lies in an object that was loaded then and has not been unloaded since: another library may lie at the same place by now, and
//! the workers would run whatever the old one had there.

use std::ffi::{CStr, c_int, c_void};

use crate::error::{Error, Result};

/// What was loaded at one moment.
#[derive(Debug)]
pub struct Loaded {
    objects: Vec<Object>,
    /// How many objects the loader had taken out by then.
    unloaded: u64,
    /// What else was code, where that is allowed: memory of no object, in which programs make functions at run time.
    made: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Object {
    name: String,
    base: usize,
    /// The linker's name for exactly this build; empty where it was not asked for one.
    build_id: Vec<u8>,
    /// Addresses of the segments that hold code.
    code: Vec<(usize, usize)>,
}

impl Object {
    fn has(&self, address: usize) -> bool {
        self.code.iter().any(|&(start, end)| (start..end).contains(&address))
    }

    fn is_same_build(&self, other: &Object) -> bool {
        self.base == other.base && !self.build_id.is_empty() && self.build_id == other.build_id
    }
}

impl Loaded {
    pub fn now() -> Loaded {
        let mut objects = Vec::new();
        let mut unloaded = 0;
        visit(|info| {
            unloaded = info.dlpi_subs;
            objects.extend(Object::of(info));
            false
        });
        Loaded { objects, unloaded, made: Vec::new() }
    }

    /// With code that was made at run time.
    pub fn now_with_made_code() -> Loaded {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        // The kernel's own page of code lies elsewhere in another process.
        let made = maps.lines().filter(|line| !line.contains("[v")).filter_map(executable).collect();
        Loaded { made, ..Loaded::now() }
    }

    /// Fails unless `address` is code that was there at that moment and is still the same.
    #[inline]
    pub fn check(&self, address: usize) -> Result<()> {
        let found = self.objects.iter().find(|object| object.has(address));
        // The program itself comes first and cannot be unloaded.
        match found {
            Some(object) if std::ptr::eq(object, &self.objects[0]) || unloaded_until_now() == self.unloaded => Ok(()),
            found => self.check_slowly(address, found),
        }
    }

    #[cold]
    fn check_slowly(&self, address: usize, before: Option<&Object>) -> Result<()> {
        let no = |why: String| Err(Error::invalid(format!("fn: {address:#x} {why}")));
        if address == 0 {
            return Err(Error::invalid("fn is NULL"));
        }
        if before.is_none() && self.made.iter().any(|&(start, end)| (start..end).contains(&address)) {
            return Ok(());
        }
        let now = Loaded::now();
        let after = now.objects.iter().find(|object| object.has(address));
        match (before, after) {
            (None, None) => no("is not code of the program or of a library".into()),
            (None, Some(after)) => no(format!("is in {}, which was loaded after the pool was made", after.name)),
            (Some(before), None) => no(format!("was in {}, which was unloaded", before.name)),
            (Some(before), Some(after)) if before.is_same_build(after) => Ok(()),
            (Some(before), Some(after)) if before.name == after.name => {
                no(format!("is in {}: it was unloaded, and what was loaded since is not known to be the same", after.name))
            }
            (Some(before), Some(after)) => {
                no(format!("is in {} now; when the pool was made it was in {}", after.name, before.name))
            }
        }
    }
}

impl Object {
    /// `None` for what is not a file: the kernel's own page of code.
    fn of(info: &libc::dl_phdr_info) -> Option<Object> {
        // SAFETY: the loader's name of the object; empty for the program, null in some libcs.
        let name = if info.dlpi_name.is_null() { c"" } else { unsafe { CStr::from_ptr(info.dlpi_name) } };
        // SAFETY: reads a number that the kernel gave this process.
        let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
        let base = info.dlpi_addr as usize;
        let mut object = Object {
            name: if name.is_empty() { "the program".to_owned() } else { name.to_string_lossy().into_owned() },
            base,
            build_id: Vec::new(),
            code: Vec::new(),
        };
        for header in headers(info) {
            let start = base.wrapping_add(header.p_vaddr as usize);
            match header.p_type {
                libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => {
                    object.code.push((start, start.wrapping_add(header.p_memsz as usize)))
                }
                // SAFETY: a segment of the object, which is mapped while the loader shows it.
                libc::PT_NOTE => object.build_id.extend(build_id(unsafe { memory(start, header.p_filesz as usize) })),
                _ => {}
            }
        }
        let is_vdso = vdso != 0 && object.has(vdso);
        (!is_vdso).then_some(object)
    }
}

fn headers(info: &libc::dl_phdr_info) -> &[libc::Elf64_Phdr] {
    if info.dlpi_phdr.is_null() {
        return &[];
    }
    // SAFETY: the loader's array of that many elements.
    unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) }
}

/// # Safety
/// `length` readable bytes.
unsafe fn memory<'a>(address: usize, length: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), length) }
}

/// The build id among the notes: {name length, length, type, name, content}, each padded to 4 bytes.
fn build_id(mut notes: &[u8]) -> Vec<u8> {
    const BUILD_ID: u32 = 3;
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    while let (Some(name), Some(length), Some(kind)) = (word(notes, 0), word(notes, 4), word(notes, 8)) {
        let content = 12 + (name as usize).next_multiple_of(4);
        let end = content + length as usize;
        if kind == BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(content..end).unwrap_or_default().to_vec();
        }
        notes = notes.get(end.next_multiple_of(4)..).unwrap_or_default();
    }
    Vec::new()
}

/// Whether an address can be called in this process now: code of a loaded object, or memory that a program made code of. True where
/// nobody can say.
pub fn is_code(address: usize) -> bool {
    Loaded::now().objects.iter().any(|object| object.has(address))
        || std::fs::read_to_string("/proc/self/maps")
            .map_or(true, |maps| maps.lines().filter_map(executable).any(|(start, end)| (start..end).contains(&address)))
}

/// The addresses of a line of /proc/PID/maps, if they are code.
fn executable(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let range = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    rights.contains('x').then_some(range)
}

/// The name of the function at an address, for people: of its symbol where the loader knows one, else its place in its file.
pub fn name_of(address: usize) -> String {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address, and a live struct; the strings are the loader's, and looked at before anything can be unloaded by this thread.
    let (found, symbol, file) = unsafe {
        let found = libc::dladdr(std::ptr::without_provenance(address), &mut info) != 0;
        let text = |text: *const std::ffi::c_char| {
            (found && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        (found, text(info.dli_sname), text(info.dli_fname))
    };
    let exact = info.dli_saddr as usize == address;
    match (symbol, file) {
        (Some(symbol), _) if exact => symbol,
        (_, Some(file)) if found => {
            let name = file.rsplit('/').next().unwrap_or(&file);
            format!("{name}+{:#x}", address.wrapping_sub(info.dli_fbase as usize))
        }
        _ => format!("{address:#x}"),
    }
}

/// The loader's count of objects that it has taken out.
fn unloaded_until_now() -> u64 {
    let mut unloaded = 0;
    visit(|info| {
        unloaded = info.dlpi_subs;
        true
    });
    unloaded
}

/// Calls `body` for each loaded object, the program first, until it says true.
fn visit<F: FnMut(&libc::dl_phdr_info) -> bool>(mut body: F) {
    extern "C" fn call<F: FnMut(&libc::dl_phdr_info) -> bool>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        body: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's record, alive during the call, and the closure below.
        let (info, body) = unsafe { (&*info, &mut *body.cast::<F>()) };
        body(info).into()
    }
    // SAFETY: the callback gets what it expects.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut body).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_program_and_its_libraries_is_code_and_nothing_else_is() {
        let loaded = Loaded::now();
        loaded.check(code_of_the_program_and_its_libraries_is_code_and_nothing_else_is as fn() as usize).unwrap();
        loaded.check(libc::getpid as *const () as usize).unwrap();
        let local = 0u8;
        assert!(loaded.check(&raw const local as usize).is_err());
        assert!(loaded.check(0).unwrap_err().message().contains("NULL"));
        // SAFETY: reads a number that the kernel gave this process.
        let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
        assert!(vdso == 0 || loaded.check(vdso).is_err());
        assert!(is_code(libc::getpid as *const () as usize) && !is_code(&raw const local as usize) && !is_code(1));
    }

    #[test]
    fn libraries_have_build_ids() {
        assert!(Loaded::now().objects.iter().any(|object| !object.build_id.is_empty()));
    }
}
