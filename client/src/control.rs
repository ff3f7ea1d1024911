//! Commands to a running engine: JSON lines, from standard input or through a socket in the home.
//!
//! One process owns a home. Another command on it is carried out by the owner: it sends one line through `control.sock` and gets
//! the events of what it asked for, and then the outcome.

mod call;

pub use call::call;

use crate::devices::{DEFAULT_DEVICE, Direction, find};
use crate::engine::{Handle, Turn};
use crate::events::{Event, json_line};
use crate::media::{MediaOptions, VOLUME_MAX};
use ahoy_audio::wav::{WavError, read_speech};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::debug;

/// Name of the socket in the home.
const SOCKET: &str = "control.sock";
/// Longest line: a command with two paths in it.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Most commands through the socket at once: each is a person at a terminal, or a script.
const CONNECTIONS_MAX: usize = 16;

/// How often the owner's socket is tried, and the time between: a process takes its lock two seconds at most before it listens.
const CONNECT_TRIES_MAX: u32 = 20;
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Why a command through the socket failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The socket.
    #[error("another ahoy owns {dir}, and does not take commands: {source}; end it, or name another folder with --home", dir = .dir.display())]
    Socket {
        /// The home.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The owner ended before it said how it went.
    #[error("the ahoy that owns this home ended before the command was done")]
    Interrupted,
}

/// A command, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// Call somebody.
    Call(CallLine),
    /// Take the call that rings.
    Answer,
    /// Do not take it.
    Decline,
    /// End the call.
    #[serde(alias = "hangup")]
    HangUp,
    /// Say how things are.
    Status,
    /// Read the settings again, and follow them.
    FollowSettings,
    /// Close the microphone until `unmute`, or the end of the call.
    Mute,
    /// Open it again.
    Unmute,
    /// Put the call on hold: nothing is said, nothing is heard, and the other side is told.
    Hold,
    /// Go on with it.
    Resume,
    /// Play the other side so loud.
    Volume {
        /// 0 to 200.
        percent: u8,
    },
    /// Open the microphone only while a key is pressed, or all the time.
    PushToTalk {
        /// Whether only then.
        on: bool,
    },
    /// That key is pressed, or let go.
    Talk {
        /// Whether it is pressed.
        on: bool,
    },
    /// Use another microphone from here on.
    Microphone(DeviceLine),
    /// Use another speaker from here on.
    Speaker(DeviceLine),
    /// Use another device to ring from here on.
    Ringer(DeviceLine),
}

/// Which device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceLine {
    /// As `ahoy devices` lists it; null: the system's default.
    #[serde(default)]
    pub device: Option<String>,
}

impl DeviceLine {
    /// The id of the device that is meant; `None` is the system's default.
    async fn find(&self, direction: Direction) -> Option<String> {
        match self.device.as_deref() {
            None | Some(DEFAULT_DEVICE) => None,
            Some(name) => Some(find(direction, name.to_owned()).await),
        }
    }
}

/// How to call somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLine {
    /// Whom.
    pub name: String,
    /// A WAV file to send instead of the microphone's sound.
    #[serde(default)]
    pub play: Option<PathBuf>,
    /// A WAV file to write instead of playing on the speaker.
    #[serde(default)]
    pub record: Option<PathBuf>,
    /// Hang up so long after both speak.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Never use a direct path.
    #[serde(default)]
    pub relay_only: bool,
    /// The microphone for this call.
    #[serde(default)]
    pub microphone: Option<String>,
    /// The speaker for this call.
    #[serde(default)]
    pub speaker: Option<String>,
    /// Put the files behind virtual devices, for measurements.
    #[serde(default)]
    pub virtual_devices: bool,
}

/// How a command went: the last line on the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `None`: well. Else why not, in a sentence.
    pub failed: Option<String>,
}

impl CallLine {
    /// The sound it asks for; `None` if it asks for nothing special.
    ///
    /// # Errors
    /// If the file to send cannot be read, or the recording cannot be written.
    pub fn media(&self) -> Result<Option<MediaOptions>, WavError> {
        if self.play.is_none() && self.record.is_none() && self.microphone.is_none() && self.speaker.is_none() {
            return Ok(None);
        }
        let play = self.play.as_deref().map(read_speech).transpose()?.map(Arc::new);
        let (microphone, speaker) = (self.microphone.clone(), self.speaker.clone());
        let options =
            MediaOptions { play, record: self.record.clone(), microphone, speaker, is_echo: false, is_virtual: self.virtual_devices };
        options.check()?;
        Ok(Some(options))
    }
}

/// Carries out one command on a running engine; its events go to `tell`. A call is hung up when `interrupted` is ready.
///
/// # Errors
/// A sentence for the user.
pub async fn carry_out(
    handle: &Handle,
    line: &Line,
    interrupted: impl Future<Output = ()>,
    mut tell: impl FnMut(&Event),
) -> Result<(), String> {
    match line {
        Line::Answer => handle.answer().await,
        Line::Decline => handle.decline().await,
        Line::HangUp => handle.hang_up().await,
        Line::Status => {
            tell(&handle.online_event());
            Ok(())
        }
        Line::FollowSettings => handle.follow_settings().await,
        Line::Mute => handle.turn(Turn::Mute(true)).await,
        Line::Unmute => handle.turn(Turn::Mute(false)).await,
        Line::Hold => handle.turn(Turn::Hold(true)).await,
        Line::Resume => handle.turn(Turn::Hold(false)).await,
        Line::Volume { percent } if *percent > VOLUME_MAX => Err(format!("the volume can be 0 to {VOLUME_MAX} percent")),
        Line::Volume { percent } => handle.turn(Turn::Volume(*percent)).await,
        Line::PushToTalk { on } => handle.turn(Turn::PushToTalk(*on)).await,
        Line::Talk { on } => handle.turn(Turn::Talk(*on)).await,
        Line::Microphone(line) => handle.turn(Turn::Microphone(line.find(Direction::Input).await)).await,
        Line::Speaker(line) => handle.turn(Turn::Speaker(line.find(Direction::Output).await)).await,
        Line::Ringer(line) => handle.turn(Turn::Ringer(line.find(Direction::Output).await)).await,
        Line::Call(line) => call(handle, line, interrupted, tell).await,
    }
}

/// Takes commands through the socket in `dir` for as long as it is polled.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(dir: &Path, handle: &Handle) -> std::io::Result<()> {
    let folder = std::fs::File::open(dir)?;
    let path = socket_path(&folder);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, _) = listener.accept().await?;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let handle = handle.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, &handle).await {
                debug!(%error, "a command was not served");
            }
            drop(place);
        });
    }
}

/// The socket's path through the open folder: a path in a deep folder would be too long for a socket.
fn socket_path(folder: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

async fn serve_one(stream: UnixStream, handle: &Handle) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let Some(text) = next_line(&mut lines).await? else { return Ok(()) };
    // The asker says nothing more; its end is the end of what it asked for.
    let gone = async {
        let _ = next_line(&mut lines).await;
    };
    let (told, mut events) = tokio::sync::mpsc::channel::<String>(256);
    let carrying_out = async {
        let outcome = match parse(&text) {
            Ok(line) => {
                let tell = |event: &Event| {
                    if let Some(line) = json_line(event) {
                        // Full: the reader is slow; the outcome still comes.
                        let _ = told.try_send(line);
                    }
                };
                carry_out(handle, &line, gone, tell).await
            }
            Err(error) => Err(error),
        };
        drop(told);
        outcome
    };
    let writing = async {
        while let Some(line) = events.recv().await {
            write.write_all(format!("{line}\n").as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(write)
    };
    let (outcome, written) = tokio::join!(carrying_out, writing);
    let last = serde_json::to_string(&Outcome { failed: outcome.err() }).unwrap_or_default();
    written?.write_all(format!("{last}\n").as_bytes()).await
}

/// Has the owner of `dir` carry out a command; its events go to `tell` as lines of JSON.
///
/// # Errors
/// See [`ControlError`]; the inner error is the owner's sentence for the user.
pub async fn delegate(dir: &Path, line: &Line, mut tell: impl FnMut(&str)) -> Result<Result<(), String>, ControlError> {
    let failed = |source| ControlError::Socket { dir: dir.to_owned(), source };
    let folder = std::fs::File::open(dir).map_err(failed)?;
    let stream = connect(&socket_path(&folder)).await.map_err(failed)?;
    let (read, mut write) = stream.into_split();
    let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
    write.write_all(format!("{text}\n").as_bytes()).await.map_err(failed)?;
    let mut lines = BufReader::new(read);
    while let Some(line) = next_line(&mut lines).await.map_err(failed)? {
        if let Ok(outcome) = serde_json::from_str::<Outcome>(&line)
            && !line.contains("\"event\"")
        {
            return Ok(outcome.failed.map_or(Ok(()), Err));
        }
        tell(&line);
    }
    Err(ControlError::Interrupted)
}

/// Connects to the owner's socket, which may have begun a moment ago.
async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let mut tries = 0;
    loop {
        match UnixStream::connect(path).await {
            Err(_) if tries < CONNECT_TRIES_MAX => tries += 1,
            connected => return connected,
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

/// The command in a line.
///
/// # Errors
/// A sentence that says what a command looks like.
pub fn parse(text: &str) -> Result<Line, String> {
    serde_json::from_str(text).map_err(|error| format!("not a command: {error}; one looks like {{\"command\":\"call\",\"name\":\"bob\"}}"))
}

/// The next line, without its end; `None` when there are no more.
///
/// # Errors
/// The reader's. A line longer than any command, or that is no text, is [`InvalidData`](std::io::ErrorKind::InvalidData); the next call
/// goes on behind it.
pub async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let read = (&mut *reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.pop_if(|last| *last == b'\n').is_some() || read == 0 {
            break match () {
                () if is_too_long => Err(invalid("a line longer than any command")),
                () if read == 0 && line.is_empty() => Ok(None),
                () => String::from_utf8(line).map(Some).map_err(|_| invalid("a line that is not UTF-8")),
            };
        }
        if line.len() as u64 >= LINE_BYTES_MAX {
            is_too_long = true;
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_as_documented() {
        assert_eq!(parse(r#"{"command":"answer"}"#), Ok(Line::Answer));
        assert_eq!(parse(r#"{"command":"hangup"}"#), Ok(Line::HangUp));
        let call = CallLine { name: "bob".into(), seconds: Some(3), ..CallLine::default() };
        assert_eq!(parse(r#"{"command":"call","name":"bob","seconds":3}"#), Ok(Line::Call(call)));
        for (text, line) in [
            (r#"{"command":"mute"}"#, Line::Mute),
            (r#"{"command":"resume"}"#, Line::Resume),
            (r#"{"command":"volume","percent":80}"#, Line::Volume { percent: 80 }),
            (r#"{"command":"push-to-talk","on":true}"#, Line::PushToTalk { on: true }),
            (r#"{"command":"talk","on":false}"#, Line::Talk { on: false }),
            (r#"{"command":"microphone","device":"desk"}"#, Line::Microphone(DeviceLine { device: Some("desk".into()) })),
            (r#"{"command":"speaker"}"#, Line::Speaker(DeviceLine::default())),
        ] {
            assert_eq!(parse(text), Ok(line));
        }
    }

    #[test]
    fn what_is_no_command_says_what_one_looks_like() {
        for text in ["", "answer", "{}", r#"{"command":"dance"}"#, r#"{"command":"call"}"#] {
            assert!(parse(text).expect_err(text).contains("one looks like"), "{text}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let long = [vec![b'x'; 100_000], b"\n\xff\nanswer".to_vec()].concat();
        let mut long = BufReader::new(std::io::Cursor::new(long));
        for _ in 0..2 {
            assert_eq!(next_line(&mut long).await.expect_err("no command").kind(), std::io::ErrorKind::InvalidData);
        }
        assert_eq!(next_line(&mut long).await.expect("reads").as_deref(), Some("answer"));
        let mut lines = BufReader::new(std::io::Cursor::new(b"a\nb".to_vec()));
        assert_eq!(next_line(&mut lines).await.expect("reads").as_deref(), Some("a"));
        assert_eq!(next_line(&mut lines).await.expect("reads").as_deref(), Some("b"));
        assert_eq!(next_line(&mut lines).await.expect("reads"), None);
    }
}
