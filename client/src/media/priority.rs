//! Priority of the threads of sound: real time where the system grants it, else whatever it does grant. Nothing here needs root.
//!
//! Desktop systems grant real time to members of a group (`rtprio` in limits.conf) or negative niceness (`nice`); where neither is
//! granted, sound runs like everything else, and the jitter buffer and the playback queue learn how late that is.

use tracing::debug;

/// Low among the real-time priorities: above every ordinary program, below the sound server's own threads.
const REAL_TIME_PRIORITY: libc::rlim_t = 5;
/// What sound servers give their threads where real time is refused.
const NICENESS: libc::c_int = -11;

/// Raises the calling thread as far as the system grants it.
pub(super) fn raise() {
    let granted = if be_real_time() {
        "real time"
    } else if be_nice() {
        "niceness"
    } else {
        "none"
    };
    debug!(granted, thread = std::thread::current().name(), "priority of sound");
}

fn be_real_time() -> bool {
    // What the limit does not allow may be granted all the same, to who has the right to do without.
    has_priority(REAL_TIME_PRIORITY) || has_priority(REAL_TIME_PRIORITY.min(priority_limit()))
}

fn has_priority(priority: libc::rlim_t) -> bool {
    let Some(sched_priority) = libc::c_int::try_from(priority).ok().filter(|priority| *priority > 0) else { return false };
    let wanted = libc::sched_param { sched_priority };
    // What this thread starts must not be as important as it is.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and the parameters outlive the call, which keeps no pointer.
    unsafe { libc::sched_setscheduler(0, policy, &raw const wanted) == 0 }
}

/// The real-time priority that the system's limit allows; 0 is none.
fn priority_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives the call, which keeps no pointer.
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_RTPRIO, &raw mut limit) } == 0;
    if is_known { limit.rlim_cur } else { 0 }
}

fn be_nice() -> bool {
    // SAFETY: it takes numbers alone; for Linux, 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) == 0 }
}
