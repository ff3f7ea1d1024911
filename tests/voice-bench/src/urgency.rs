//! Real-time scheduling for what is started while it lasts, on machines that are busy with something else.

/// While it lives, this thread and what it starts run before everything of usual priority.
#[derive(Debug)]
pub(crate) struct Urgent(());

impl Urgent {
    /// From here on. Where the system does not allow it, nothing changes.
    pub(crate) fn begin() -> Self {
        set(libc::SCHED_RR, 1);
        Self(())
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        set(libc::SCHED_OTHER, 0);
    }
}

fn set(policy: libc::c_int, priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters outlive the call, which changes the calling thread alone.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0 {
        eprintln!("no real-time scheduling: {}", std::io::Error::last_os_error());
    }
}
