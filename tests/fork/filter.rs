//! A kernel that refuses what newer ones have.

/// Set in the second run.
pub const VARIABLE: &str = "TINE_TEST_REFUSE";

/// Whether this is the second run.
pub fn refused() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// From now on pidfds and close_range are unknown to this process and its descendants. `false`: no filters here.
pub fn install() -> bool {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };

    // The call's number is the first word of what a filter sees.
    let mut code = vec![statement(LOAD_NUMBER, 0)];
    for call in [libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_close_range] {
        code.push(libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: call as u32 });
        code.push(statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    code.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: a live program of that length; a process may always take rights away from itself.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}
