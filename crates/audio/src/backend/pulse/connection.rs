//! A connection to the sound server: commands out, messages in, nothing dropped between.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pulseaudio::protocol::{
    AuthParams, AuthReply, Command, CommandReply, DESCRIPTOR_SIZE, Descriptor, DescriptorFlags, MAX_VERSION, Prop, Props, ProtocolError,
    PulseError, SetClientNameReply, TagStructReader, encode_descriptor, read_descriptor, write_command_message,
};
use thiserror::Error;

/// How long the server may take to answer, or to take what is sent. Opening a wireless device takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest message that is taken: ten times what a list of many devices takes.
const MESSAGE_MAX: usize = 1 << 20;

/// Messages that wait while an answer is waited for, at most: what comes in some seconds. Beyond it the oldest are dropped.
const BACKLOG_MAX: usize = 4_096;

/// Read at once, in bytes: some periods of sound.
const READ: usize = 16 * 1024;

/// The channel of commands.
const COMMANDS: u32 = u32::MAX;

/// Why a connection is of no more use, or a command was refused.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("there is no sound server")]
    NoServer,
    #[error("the sound server ended")]
    Closed,
    #[error("the connection to the sound server broke: {0}")]
    Io(#[from] io::Error),
    #[error("the sound server does not answer")]
    Silent,
    #[error("the sound server is not understood: {0}")]
    Protocol(ProtocolError),
    #[error("the sound server refuses: {0}")]
    Refused(PulseError),
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::ServerError(error) => Self::Refused(error),
            ProtocolError::Io(error) => Self::Io(error),
            other => Self::Protocol(other),
        }
    }
}

/// What the server sends.
#[derive(Debug)]
pub(super) enum Message {
    /// A command of its own.
    Command(Box<Command>),
    /// Its answer to the command with this number.
    Reply(u32, Vec<u8>),
    /// It refuses the command with this number.
    Error(u32, PulseError),
    /// Sound of this stream.
    Sound(u32, Vec<u8>),
}

pub(super) struct Connection {
    socket: UnixStream,
    version: u16,
    next_number: u32,
    received: Vec<u8>,
    backlog: VecDeque<Message>,
    chunk: Box<[u8]>,
    /// How long the socket waits, so that it is told only when that changes: it is read hundreds of times a second.
    patience: Option<Duration>,
}

impl Connection {
    /// Connects to the server that the environment names.
    pub(super) fn open() -> Result<Self, Failure> {
        let path = pulseaudio::socket_path_from_env().ok_or(Failure::NoServer)?;
        let socket = UnixStream::connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let chunk = vec![0; READ].into_boxed_slice();
        let (received, backlog) = (Vec::with_capacity(READ), VecDeque::new());
        let mut connection = Self { socket, version: MAX_VERSION, next_number: 0, received, backlog, chunk, patience: None };
        connection.introduce()?;
        Ok(connection)
    }

    fn introduce(&mut self) -> Result<(), Failure> {
        let cookie = pulseaudio::cookie_path_from_env().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let auth = AuthParams { version: MAX_VERSION, supports_shm: false, supports_memfd: false, cookie };
        let reply: AuthReply = self.ask(&Command::Auth(auth))?;
        self.version = MAX_VERSION.min(reply.version);
        let mut properties = Props::new();
        properties.set(Prop::ApplicationName, c"Ahoy");
        if let Ok(id) = CString::new(std::process::id().to_string()) {
            properties.set(Prop::ApplicationProcessId, id);
        }
        let _: SetClientNameReply = self.ask(&Command::SetClientName(properties))?;
        Ok(())
    }

    /// Sends a command without waiting for the answer, which will have this number.
    pub(super) fn send(&mut self, command: &Command) -> Result<u32, Failure> {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let mut message = Vec::new();
        write_command_message(&mut message, number, command, self.version)?;
        self.socket.write_all(&message)?;
        Ok(number)
    }

    /// Sends a command and waits for its answer. What else comes meanwhile is kept.
    pub(super) fn ask<R: CommandReply>(&mut self, command: &Command) -> Result<R, Failure> {
        let payload = self.wait_for_answer(command)?;
        self.parse(&payload)
    }

    /// Sends a command and waits until the server has done it.
    pub(super) fn tell(&mut self, command: &Command) -> Result<(), Failure> {
        self.wait_for_answer(command).map(drop)
    }

    fn wait_for_answer(&mut self, command: &Command) -> Result<Vec<u8>, Failure> {
        let number = self.send(command)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Silent);
            }
            match self.receive_anew(left)? {
                Some(Message::Reply(to, payload)) if to == number => return Ok(payload),
                Some(Message::Error(to, error)) if to == number => return Err(Failure::Refused(error)),
                Some(other) => self.keep(other),
                None => {}
            }
        }
    }

    fn keep(&mut self, message: Message) {
        if self.backlog.len() == BACKLOG_MAX {
            self.backlog.pop_front();
        }
        self.backlog.push_back(message);
    }

    /// What an answer says.
    pub(super) fn parse<R: CommandReply>(&self, payload: &[u8]) -> Result<R, Failure> {
        Ok(TagStructReader::new(&mut Cursor::new(payload), self.version).read()?)
    }

    /// Sends sound that lies in `message` from [`DESCRIPTOR_SIZE`] on.
    pub(super) fn play(&mut self, channel: u32, message: &mut [u8]) -> Result<(), Failure> {
        let Some((head, sound)) = message.split_first_chunk_mut::<DESCRIPTOR_SIZE>() else { return Ok(()) };
        let length = u32::try_from(sound.len()).unwrap_or(u32::MAX);
        encode_descriptor(head, &Descriptor { length, channel, offset: 0, flags: DescriptorFlags::empty() });
        Ok(self.socket.write_all(message)?)
    }

    /// The next message, waiting this long for one.
    pub(super) fn receive(&mut self, patience: Duration) -> Result<Option<Message>, Failure> {
        match self.backlog.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.receive_anew(patience),
        }
    }

    fn receive_anew(&mut self, patience: Duration) -> Result<Option<Message>, Failure> {
        loop {
            while let Some((descriptor, payload)) = self.split_message()? {
                if let Some(message) = self.read_message(&descriptor, payload) {
                    return Ok(Some(message));
                }
            }
            if self.patience != Some(patience) {
                // A time-out of zero would be none at all.
                self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
                self.patience = Some(patience);
            }
            match self.socket.read(&mut self.chunk) {
                Ok(0) => return Err(Failure::Closed),
                Ok(count) => self.received.extend_from_slice(&self.chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Failure::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn split_message(&mut self) -> Result<Option<(Descriptor, Vec<u8>)>, Failure> {
        if self.received.len() < DESCRIPTOR_SIZE {
            return Ok(None);
        }
        let descriptor = read_descriptor(&mut Cursor::new(&self.received))?;
        let length = descriptor.length as usize;
        if length > MESSAGE_MAX {
            return Err(ProtocolError::Invalid(format!("a message of {length} bytes")).into());
        }
        if self.received.len() < DESCRIPTOR_SIZE + length {
            return Ok(None);
        }
        let payload = self.received[DESCRIPTOR_SIZE..DESCRIPTOR_SIZE + length].to_vec();
        self.received.drain(..DESCRIPTOR_SIZE + length);
        Ok(Some((descriptor, payload)))
    }

    /// `None` for what is not known and not needed.
    fn read_message(&self, descriptor: &Descriptor, payload: Vec<u8>) -> Option<Message> {
        if descriptor.channel != COMMANDS {
            return Some(Message::Sound(descriptor.channel, payload));
        }
        let mut cursor = Cursor::new(&payload);
        match Command::read_tag_prefixed(&mut cursor, self.version) {
            Ok((number, Command::Reply)) => {
                let at = usize::try_from(cursor.position()).unwrap_or(payload.len());
                Some(Message::Reply(number, payload[at..].to_vec()))
            }
            Ok((number, Command::Error(error))) => Some(Message::Error(number, error)),
            Ok((_, command)) => Some(Message::Command(Box::new(command))),
            Err(error) => {
                tracing::trace!(%error, "a message of the sound server was not understood");
                None
            }
        }
    }
}
