//! Size-prefixed structs, extensible in both directions. The first field of each is `size`, zero is the default of every field, and
//! fields are only ever appended.

use crate::error::{Error, Kind, Result};

/// # Safety
/// `repr(C)`, first field `size: usize`, no padding, and all zeros is a valid value.
pub(super) unsafe trait Sized0: Copy {
    const NAME: &'static str;
}

/// The caller's options: NULL = defaults, a shorter struct is zero-filled, a longer one must be zero beyond what we know.
pub(super) unsafe fn read<T: Sized0>(options: *const T) -> Result<T> {
    // SAFETY: `Sized0`.
    let mut read: T = unsafe { std::mem::zeroed() };
    if options.is_null() {
        return Ok(read);
    }
    // SAFETY: contract O: at least the size field is there.
    let size = unsafe { options.cast::<usize>().read() };
    check_size::<T>(size)?;
    let ours = size_of::<T>();
    // SAFETY: the caller says that `size` bytes are there; the tail is checked before anything is believed.
    unsafe {
        if size > ours {
            let tail = std::slice::from_raw_parts(options.cast::<u8>().add(ours), size - ours);
            if tail.iter().any(|&byte| byte != 0) {
                return Err(Error::new(
                    Kind::TooNew,
                    format!("{}: a field is set that this version of the library does not know", T::NAME),
                ));
            }
        }
        std::ptr::copy_nonoverlapping(options.cast::<u8>(), (&raw mut read).cast::<u8>(), size.min(ours));
    }
    Ok(read)
}

/// Fills an output struct as far as the caller's `size` says it reaches; `size` itself stays.
pub(super) unsafe fn write<T: Sized0>(out: *mut T, value: &T) -> Result<()> {
    // SAFETY: contract O.
    let size = unsafe { out.cast::<usize>().read() };
    check_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    let from = size_of::<usize>();
    // SAFETY: the caller says that `size` bytes are writable.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(from), out.cast::<u8>().add(from), known - from);
    }
    Ok(())
}

fn check_size<T: Sized0>(size: usize) -> Result<()> {
    if size < size_of::<usize>() {
        return Err(Error::invalid(format!("{}: size is {size}; set it with the INIT macro", T::NAME)));
    }
    if size > 1 << 16 {
        return Err(Error::invalid(format!("{}: a size of {size} bytes is impossible", T::NAME)));
    }
    Ok(())
}
