//! One call from `ahoy call --play --record` to `ahoy online --auto-answer --play --record`, over a link that changes as planned.

use crate::speech::Voice;
use crate::stage::{Pair, Stage};
use crate::wire::{self, Content};
use ahoy_lab::{Event, Process};
use ahoy_netlab::link::{ShapeSettings, Summary};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What works at all, works within this time.
const LONG: Duration = Duration::from_secs(60);
/// How long a direct path is waited for before the link gets worse. A call without one is bad luck and told.
const DIRECT_WAIT: Duration = Duration::from_secs(4);
/// What is heard after the last word, so that nothing is cut off.
const TAIL_SECONDS: f64 = 1.5;
/// Delay of the emulated link, one way, where a row asks for no other.
pub(crate) const ONE_WAY_MS: f64 = 25.0;
/// Queue of a bottleneck, in milliseconds: what a home router's is, when it is no worse.
pub(crate) const QUEUE_MS_MAX: f64 = 1_000.0;
/// Packets from this size on are voice; acknowledgements, probes and reports are shorter.
pub(crate) const VOICE_BYTES_MIN: usize = 90;

/// Where a call's sound comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Files, without processing.
    Files,
    /// Files behind devices that are none.
    Virtual {
        /// Whether the microphone's sound is processed.
        is_processed: bool,
    },
}

/// A call to be made.
#[derive(Debug, Clone)]
pub(crate) struct CallPlan {
    /// Names its files.
    pub(crate) id: String,
    /// The link before the call and until the first change, the same both ways.
    pub(crate) before: ShapeSettings,
    /// What becomes of the link, each so many seconds after the call has settled on its path, with a seed for each direction.
    pub(crate) changes: Vec<(f64, [ShapeSettings; 2])>,
    /// How long it lasts after that; nothing: as long as the speech.
    pub(crate) seconds: Option<f64>,
    pub(crate) devices: Devices,
}

/// What one direction of a call came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Direction {
    /// The voice that was sent.
    pub(crate) voice: usize,
    /// The recording at the other end.
    pub(crate) recording: PathBuf,
    /// From the first sample sent to the first sample of the recording, in microseconds.
    pub(crate) recording_starts_us: f64,
    /// When the first sample was sent, in Unix microseconds.
    pub(crate) play_started_us: f64,
    /// What went over the link since the first change, or since the call stood.
    pub(crate) wire: Summary,
    /// The sender's events.
    pub(crate) sender: Vec<Event>,
    /// The receiver's events.
    pub(crate) receiver: Vec<Event>,
    /// Processor time of the sender's program, as a share of one core, while the call stood.
    pub(crate) cpu_share: f64,
}

/// What a call came to.
#[derive(Debug, Clone)]
pub(crate) struct CallOutcome {
    pub(crate) plan: CallPlan,
    /// When each change was made, in Unix microseconds.
    pub(crate) changed_us: Vec<f64>,
    /// Caller to callee, and back.
    pub(crate) directions: [Direction; 2],
}

impl CallPlan {
    /// A call over a link with nothing but the usual delay, which becomes `shapes` once it stands.
    pub(crate) fn steady(id: String, shapes: [ShapeSettings; 2]) -> Self {
        Self { id, before: delay_only(), changes: vec![(0.0, shapes)], seconds: None, devices: Devices::Files }
    }
}

/// A link that does nothing but take its time.
pub(crate) fn delay_only() -> ShapeSettings {
    ShapeSettings { delay_ms: ONE_WAY_MS, ..ShapeSettings::default() }
}

/// A link that loses packets of voice by a pattern.
pub(crate) fn lossy(pattern: String) -> ShapeSettings {
    ShapeSettings { loss: pattern, loss_bytes_min: VOICE_BYTES_MIN, ..delay_only() }
}

/// Makes the call.
pub(crate) fn make(stage: &Stage, pair: &Pair, voices: &[Voice; 2], plan: &CallPlan, folder: &Path) -> CallOutcome {
    let Pair { caller, callee } = pair;
    let recording = |end: &str| folder.join(format!("{}-at-{end}.wav", plan.id));
    let (at_caller, at_callee) = (recording("caller"), recording("callee"));
    for old in [&at_caller, &at_callee] {
        let _ = std::fs::remove_file(old);
    }
    for end in [caller, callee] {
        stage.shape(end, &plan.before);
    }
    let virtually: &[&str] = match plan.devices {
        Devices::Files => &[],
        Devices::Virtual { is_processed } => {
            set_processing(pair, is_processed);
            &["--virtual-devices"]
        }
    };
    let [first, second] = voices.each_ref().map(|voice| text(&voice.file()));
    let (to_caller, to_callee) = (text(&at_caller), text(&at_callee));
    let online = callee.person.online(&[&["--auto-answer", "--play", &second, "--record", &to_callee], virtually].concat());
    let call = caller.person.call(&callee.person.name, &[&["--play", &first, "--record", &to_caller], virtually].concat());
    for side in [&call, &online] {
        let _ = side.wait_for("media", LONG);
        let _ = side.try_event(0, "path", DIRECT_WAIT, |path| path.text("kind") == "direct" || path.text("kind") == "lan");
    }
    let stood = Instant::now();
    for end in [caller, callee] {
        stage.count(end);
    }
    let cpu_before = [cpu_time(call.pid()), cpu_time(online.pid())];
    let mut changed_us = Vec::new();
    for (after_s, shapes) in &plan.changes {
        sleep((stood + Duration::from_secs_f64(*after_s)).saturating_duration_since(Instant::now()));
        for (end, shape) in [caller, callee].into_iter().zip(shapes) {
            stage.shape(end, shape);
        }
        changed_us.push(now_us());
    }
    let speech = voices.iter().map(|voice| voice.seconds).fold(0.0, f64::max) + TAIL_SECONDS;
    sleep((stood + Duration::from_secs_f64(plan.seconds.unwrap_or(speech))).saturating_duration_since(Instant::now()));
    let wire = [stage.figures(caller), stage.figures(callee)];
    let lasted = stood.elapsed().as_secs_f64();
    let cpu: Vec<f64> =
        [call.pid(), online.pid()].into_iter().zip(cpu_before).map(|(pid, before)| (cpu_time(pid) - before) / lasted).collect();
    // The end itself shall not have to cross a bad link.
    for end in [caller, callee] {
        stage.shape(end, &delay_only());
    }
    let callers = end_call(call);
    let _ = online.try_event(0, "ended", LONG, |_| true);
    let callees = online.stop().events();
    if plan.devices != Devices::Files {
        set_processing(pair, true);
    }
    let [caller_to_callee, callee_to_caller] = wire;
    let directions = [
        direction(0, at_callee, caller_to_callee, &callers, &callees, cpu[0]),
        direction(1, at_caller, callee_to_caller, &callees, &callers, cpu[1]),
    ];
    let outcome = CallOutcome { plan: plan.clone(), changed_us, directions };
    outcome.keep(folder);
    outcome
}

/// Has both process the microphone's sound as they do by default, or not at all.
pub(crate) fn set_processing(pair: &Pair, is_processed: bool) {
    let (switch, suppression) = if is_processed { ("on", "moderate") } else { ("off", "off") };
    for end in [&pair.caller, &pair.callee] {
        for (key, value) in [("echo-canceller", switch), ("noise-suppression", suppression), ("gain-control", switch)] {
            let _ = end.person.run(&["settings", "set", key, value]).succeeded();
        }
    }
}

impl CallOutcome {
    /// Leaves what both sides told and what went over the link for whoever looks closer.
    fn keep(&self, folder: &Path) {
        let events = |events: &[Event]| events.iter().map(|event| event.0.clone()).collect::<Vec<_>>();
        let directions = self.directions.each_ref().map(|direction| {
            serde_json::json!({"sender": events(&direction.sender), "receiver": events(&direction.receiver), "wire": direction.wire})
        });
        let all = serde_json::json!({"changed_us": self.changed_us, "directions": directions});
        for (ending, text) in [("json", all.to_string()), ("txt", wire::by_second(self))] {
            let path = folder.join(format!("{}.{ending}", self.plan.id));
            if let Err(error) = std::fs::write(&path, text) {
                eprintln!("  {}: {error}", path.display());
            }
        }
    }
}

fn end_call(call: Process) -> Vec<Event> {
    call.interrupt();
    call.finish(LONG).events()
}

fn direction(voice: usize, recording: PathBuf, wire: Summary, sender: &[Event], receiver: &[Event], cpu_share: f64) -> Direction {
    let at = |events: &[Event], field: &str| events.iter().find(|event| event.is("media")).map_or(0.0, |media| media.number(field));
    let play_started_us = at(sender, "play_started_us");
    Direction {
        voice,
        recording,
        recording_starts_us: at(receiver, "record_started_us") - play_started_us,
        play_started_us,
        wire,
        sender: sender.to_vec(),
        receiver: receiver.to_vec(),
        cpu_share,
    }
}

/// Makes all the calls, as many at a time as there are pairs. One that cannot be made is told and left out, and so are its rows.
pub(crate) fn make_all(stage: &Stage, pairs: &[Pair], voices: &[Voice; 2], plans: Vec<CallPlan>, folder: &Path) -> Vec<CallOutcome> {
    let queue = std::sync::Mutex::new(plans.into_iter().enumerate());
    let outcomes = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for pair in pairs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no call panics with the queue in hand").next();
                    let Some((number, plan)) = next else { return };
                    eprintln!("  call {}", plan.id);
                    // What runs as part of a call ends with it; the next one begins anew.
                    match catch_unwind(AssertUnwindSafe(|| make(stage, pair, voices, &plan, folder))) {
                        Ok(outcome) => outcomes.lock().expect("no call panics with the outcomes in hand").push((number, outcome)),
                        Err(_) => eprintln!("  call {} could not be made", plan.id),
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no call panicked");
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

impl Direction {
    /// The statistics of a side since a time in Unix microseconds.
    pub(crate) fn stats_since(events: &[Event], since_us: f64) -> impl Iterator<Item = &Event> {
        events.iter().filter(move |event| event.is("stats") && event.t_ms() * 1_000.0 >= since_us)
    }

    /// Times in Unix microseconds and sizes of packets that carry voice. A packet that is sent two ways at once counts once.
    pub(crate) fn voice_packets(&self) -> Vec<(f64, f64)> {
        let voice = wire::contents(self).into_iter().filter(|(_, content)| *content == Content::Voice);
        voice.map(|(row, _)| (row.0 as f64, f64::from(row.1))).collect()
    }

    /// Kilobits a second of all IP packets that this end sent between two times in Unix microseconds.
    pub(crate) fn wire_kbps(&self, from_us: f64, to_us: f64) -> f64 {
        let rows = self.wire.rows.iter().filter(|row| (from_us..to_us).contains(&(row.0 as f64)));
        rows.map(|row| f64::from(row.1)).sum::<f64>() * 8_000.0 / (to_us - from_us)
    }
}

/// Processor time that a process has used, in seconds.
pub(crate) fn cpu_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold anything but ends with the last bracket: the state is the third field, user and system time the 14th and 15th.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    // SAFETY: sysconf only reads.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    fields.get(11..13).map_or(0.0, |times| times.iter().sum::<f64>() / ticks)
}

pub(crate) fn now_us() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs_f64() * 1e6
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("the bench's folder has a name in UTF-8").to_owned()
}
