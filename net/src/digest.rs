//! SHA-256 of what comes piece by piece: a state on the heap behind an opaque pointer.

use std::ffi::c_int;

use sha2::Digest;

use crate::{bytes, guarded, put, EINVAL, OK};

/// One hash under way. `sn_sha256_new` makes it, `sn_sha256_finish` frees it.
pub struct Sha256(sha2::Sha256);

#[no_mangle]
pub extern "C" fn sn_sha256_new() -> *mut Sha256 {
    Box::into_raw(Box::new(Sha256(sha2::Sha256::new())))
}

/// # Safety
/// `state` is one of `sn_sha256_new` that has not been finished; `at` is valid for `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn sn_sha256_update(state: *mut Sha256, at: *const u8, len: usize) -> c_int {
    guarded(|| match (state.as_mut(), bytes(at, len)) {
        (Some(state), Some(message)) => {
            state.0.update(message);
            OK
        }
        _ => EINVAL,
    })
}

/// # Safety
/// `state` is one of `sn_sha256_new` that has not been finished; `out` is NULL or has room for 32 bytes.
#[no_mangle]
pub unsafe extern "C" fn sn_sha256_finish(state: *mut Sha256, out: *mut u8) {
    if state.is_null() {
        return;
    }
    let state = Box::from_raw(state);
    if !out.is_null() {
        put(out, &state.0.finalize());
    }
}
