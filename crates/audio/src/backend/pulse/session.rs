//! A device of the sound server: its stream, and what happens to it.
//!
//! The default device is left to the server: it chooses the device, moves the stream when the default changes, and lets
//! users move it with tools of their own. A device with a name is asked for by its name and nothing else; while it is not
//! there the default stands in, unless that is a monitor, which as a microphone would send the others their own voices.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant, SystemTime};

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    ChannelMap, Command, CreatePlaybackStreamReply, CreateRecordStreamReply, DESCRIPTOR_SIZE, GetSinkInfo, GetSourceInfo, LatencyParams,
    PlaybackLatency, PlaybackStreamParams, Prop, Props, PulseError, RecordLatency, RecordStreamParams, SampleFormat, SampleSpec,
    SetPlaybackStreamBufferAttrParams, SinkInfo, SourceInfo, SubscriptionEvent, SubscriptionEventFacility, SubscriptionEventType,
    SubscriptionMask,
};

use super::HOST;
use super::connection::{Connection, Failure, Message};
use super::latency::Latency;
use super::reserve::Reserve;
use crate::SAMPLE_RATE;
use crate::backend::Ended;
use crate::callback::{Callback, CaptureCallback, End, PlaybackCallback};
use crate::device::{Direction, Wanted};
use crate::link::{Order, Orders, Post};
use crate::state::DeviceState;

/// Frames that it gives at once, at most: 5 ms, of which half are its device's buffer.
const FRAGMENT: u32 = SAMPLE_RATE / 200;

/// Bytes of a frame: one channel of floats, which the server converts for the device.
pub(super) const FRAME: u32 = 4;

/// How soon an order is noticed while there is no sound.
const IDLE: Duration = Duration::from_millis(50);

/// How often a device is tried again that is there and does not work.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps a stream open, as ordered, until that ends or the server does.
pub(super) fn run<E: End>(server: Connection, orders: &Orders, post: &Post<E>) -> Result<Ended, Failure> {
    let mut session = Session { server, orders, post, stream: None, is_substitute: false, retry: None, created: 0 };
    session.server.tell(&Command::Subscribe(SubscriptionMask::SINK | SubscriptionMask::SOURCE | SubscriptionMask::SERVER))?;
    session.open()?;
    loop {
        match orders.poll() {
            Order::GoOn => {}
            Order::Change => session.open()?,
            Order::Stop => return Ok(Ended::Stopped),
        }
        if let Some(message) = session.server.receive(IDLE)? {
            session.handle(message)?;
        }
        session.handle_time(Instant::now())?;
    }
}

struct Session<'a, E> {
    server: Connection,
    orders: &'a Orders,
    post: &'a Post<E>,
    stream: Option<Stream>,
    /// Whether the stream plays on another device than the one that is wanted.
    is_substitute: bool,
    /// When to try again.
    retry: Option<Instant>,
    /// Streams that were created: each has a number of its own, since those with the same one must share a device.
    created: u32,
}

struct Stream {
    channel: u32,
    sound: Sound,
    latency: Latency,
}

enum Sound {
    Capture { callback: CaptureCallback, samples: Vec<f32> },
    Playback { callback: PlaybackCallback, message: Vec<u8>, samples: Vec<f32>, reserve: Reserve },
}

/// A stream that the server has opened.
struct Opened {
    channel: u32,
    device: Option<u32>,
    device_name: String,
    /// Bytes it wants at once.
    wants: u32,
}

impl<E: End> Session<'_, E> {
    /// Opens what is wanted, or what stands in for it; what was open is closed after that.
    fn open(&mut self) -> Result<(), Failure> {
        self.retry = None;
        let before = self.stream.take();
        let opened = match self.orders.wanted() {
            Wanted::Default => self.create(None).map(|opened| (opened, false)),
            Wanted::Named(_) => match self.wanted_name().map(|name| self.create(Some(&name))) {
                Some(Ok(opened)) => Ok((opened, false)),
                None | Some(Err(Failure::Refused(PulseError::NoEntity))) => self.create_substitute().map(|opened| (opened, true)),
                Some(Err(failure)) => Err(failure),
            },
        };
        let started = match opened {
            Ok((opened, is_substitute)) => self.start(opened, is_substitute),
            Err(Failure::Refused(error)) => {
                self.refused(error);
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        if let Some(before) = before {
            self.close(before.channel)?;
        }
        started
    }

    fn create_substitute(&mut self) -> Result<Opened, Failure> {
        let opened = self.create(None)?;
        if E::DIRECTION == Direction::Input && opened.device_name.ends_with(".monitor") {
            self.close(opened.channel)?;
            return Err(Failure::Refused(PulseError::NoEntity));
        }
        Ok(opened)
    }

    fn create(&mut self, device: Option<&CStr>) -> Result<Opened, Failure> {
        let sample_spec = SampleSpec { format: SampleFormat::Float32Le, channels: 1, sample_rate: SAMPLE_RATE };
        let mut props = Props::new();
        props.set(Prop::MediaName, c"Call");
        props.set(Prop::MediaRole, c"phone");
        // What has a name is that device or nothing.
        let flags = StreamFlags { adjust_latency: true, no_move: device.is_some(), ..StreamFlags::default() };
        let name = device.map(CStr::to_owned);
        let channel_map = ChannelMap::mono();
        self.created += 1;
        match E::DIRECTION {
            Direction::Input => {
                let buffer_attr = BufferAttr { fragment_size: FRAGMENT * FRAME, ..BufferAttr::default() };
                let params =
                    RecordStreamParams { sample_spec, channel_map, source_name: name, buffer_attr, flags, props, ..Default::default() };
                let reply: CreateRecordStreamReply = self.server.ask(&Command::CreateRecordStream(params))?;
                tracing::debug!(granted = ?reply.buffer_attr, latency_us = reply.stream_latency, "recording from the sound server");
                Ok(Opened {
                    channel: reply.channel,
                    device: Some(reply.sink_index),
                    device_name: text(reply.sink_name.as_deref()),
                    wants: 0,
                })
            }
            Direction::Output => {
                let buffer_attr = Reserve::new().buffer();
                let sync_id = self.created;
                let params = PlaybackStreamParams {
                    sample_spec,
                    channel_map,
                    sink_name: name,
                    buffer_attr,
                    sync_id,
                    flags,
                    props,
                    ..Default::default()
                };
                let reply: CreatePlaybackStreamReply = self.server.ask(&Command::CreatePlaybackStream(params))?;
                tracing::debug!(granted = ?reply.buffer_attr, latency_us = reply.stream_latency, "playing on the sound server");
                let (channel, wants) = (reply.channel, reply.requested_bytes);
                Ok(Opened { channel, device: Some(reply.sink_index), device_name: text(reply.sink_name.as_deref()), wants })
            }
        }
    }

    fn start(&mut self, opened: Opened, is_substitute: bool) -> Result<(), Failure> {
        let (callback, end) = E::open(SAMPLE_RATE, 1);
        let sound = match callback {
            Callback::Capture(callback) => Sound::Capture { callback, samples: Vec::new() },
            Callback::Playback(callback) => {
                let (message, samples) = (Vec::new(), Vec::new());
                Sound::Playback { callback, message, samples, reserve: Reserve::new() }
            }
        };
        self.post.hand_over(end);
        self.is_substitute = is_substitute;
        self.stream = Some(Stream { channel: opened.channel, sound, latency: Latency::new(Instant::now()) });
        self.handle_request(opened.channel, opened.wants)?;
        self.tell_running(opened.device, opened.device_name)
    }

    /// Tells the name that people know the device by.
    fn tell_running(&mut self, index: Option<u32>, name: String) -> Result<(), Failure> {
        let description = match E::DIRECTION {
            Direction::Input => {
                self.server.ask(&Command::GetSourceInfo(GetSourceInfo { index, name: None })).map(|info: SourceInfo| info.description)
            }
            Direction::Output => {
                self.server.ask(&Command::GetSinkInfo(GetSinkInfo { index, name: None })).map(|info: SinkInfo| info.description)
            }
        };
        let name = match description {
            Ok(Some(description)) => description.to_string_lossy().into_owned(),
            // It is gone again, which will be told.
            Ok(None) | Err(Failure::Refused(_)) => name,
            Err(failure) => return Err(failure),
        };
        self.post.runs(name, self.is_substitute);
        Ok(())
    }

    fn refused(&mut self, error: PulseError) {
        let reason = error.to_string();
        let state = match error {
            PulseError::NoEntity => DeviceState::Missing,
            PulseError::Busy | PulseError::Timeout => DeviceState::Busy { reason },
            _ => DeviceState::Failed { reason },
        };
        self.post.set(state);
        self.retry = Some(Instant::now() + RETRY);
    }

    fn close(&mut self, channel: u32) -> Result<(), Failure> {
        let command = match E::DIRECTION {
            Direction::Input => Command::DeleteRecordStream(channel),
            Direction::Output => Command::DeletePlaybackStream(channel),
        };
        // It may be gone by itself.
        self.server.send(&command).map(drop)
    }

    fn handle(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Sound(channel, bytes) => {
                self.handle_sound(channel, &bytes);
                Ok(())
            }
            Message::Reply(number, payload) => self.handle_reply(number, &payload),
            Message::Error(number, error) => {
                tracing::trace!(number, %error, "the sound server refused a command");
                Ok(())
            }
            Message::Command(command) => self.handle_command(&command),
        }
    }

    fn handle_command(&mut self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Request(request) => self.handle_request(request.channel, request.length),
            Command::Underflow(underflow) => self.handle_underflow(underflow.channel, Instant::now()),
            Command::PlaybackStreamKilled(channel) | Command::RecordStreamKilled(channel) => self.handle_killed(*channel),
            Command::PlaybackStreamMoved(moved) => self.handle_moved(moved.stream_index, moved.device_index, &moved.device_name),
            Command::RecordStreamMoved(moved) => self.handle_moved(moved.stream_index, moved.device_index, &moved.device_name),
            Command::SubscribeEvent(event) => self.handle_event(event),
            _ => Ok(()),
        }
    }

    fn handle_sound(&mut self, from: u32, bytes: &[u8]) {
        let Some(Stream { channel, sound: Sound::Capture { callback, samples }, latency }) = &mut self.stream else { return };
        if *channel != from {
            return;
        }
        samples.clear();
        samples.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        let now = Instant::now();
        callback.run(samples, latency.at(now));
        latency.handle_sound(now);
    }

    /// The server wants this many bytes.
    fn handle_request(&mut self, from: u32, bytes: u32) -> Result<(), Failure> {
        let Some(Stream { channel, sound: Sound::Playback { callback, message, samples, reserve }, latency }) = &mut self.stream else {
            return Ok(());
        };
        let frames = (bytes / FRAME) as usize;
        if *channel != from || frames == 0 {
            return Ok(());
        }
        let skip = reserve.take_silent(frames);
        callback.skip(skip);
        samples.clear();
        samples.resize(frames, 0.0);
        let now = Instant::now();
        if skip < frames {
            callback.run(&mut samples[skip..], latency.at(now));
        }
        latency.handle_sound(now);
        message.resize(DESCRIPTOR_SIZE, 0);
        message.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.server.play(from, message)
    }

    /// The server had nothing to play for a moment.
    fn handle_underflow(&mut self, from: u32, now: Instant) -> Result<(), Failure> {
        let Some(Stream { channel, sound: Sound::Playback { reserve, .. }, .. }) = &mut self.stream else { return Ok(()) };
        if *channel == from && reserve.handle_underflow(now) { self.keep_reserve() } else { Ok(()) }
    }

    /// The server has not run dry for a while.
    fn handle_calm(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(Stream { sound: Sound::Playback { reserve, .. }, .. }) = &mut self.stream else { return Ok(()) };
        if reserve.handle_calm(now) { self.keep_reserve() } else { Ok(()) }
    }

    /// Asks the server to keep as much as the reserve says.
    fn keep_reserve(&mut self) -> Result<(), Failure> {
        let Some(Stream { channel, sound: Sound::Playback { reserve, .. }, .. }) = &self.stream else { return Ok(()) };
        let buffer_attr = reserve.buffer();
        let params = SetPlaybackStreamBufferAttrParams { index: *channel, buffer_attr, adjust_latency: true, early_requests: false };
        self.server.send(&Command::SetPlaybackStreamBufferAttr(params)).map(drop)
    }

    fn handle_killed(&mut self, from: u32) -> Result<(), Failure> {
        if self.stream.as_ref().is_none_or(|stream| stream.channel != from) {
            return Ok(());
        }
        self.stream = None;
        self.post.set(DeviceState::Failed { reason: "it was taken away".into() });
        self.open()
    }

    fn handle_moved(&mut self, from: u32, device: u32, name: &CStr) -> Result<(), Failure> {
        if self.stream.as_ref().is_none_or(|stream| stream.channel != from) {
            return Ok(());
        }
        self.tell_running(Some(device), text(Some(name)))
    }

    /// Something happened to a device, perhaps to the one that is wanted and not there.
    fn handle_event(&mut self, event: &SubscriptionEvent) -> Result<(), Failure> {
        let facility = match E::DIRECTION {
            Direction::Input => SubscriptionEventFacility::Source,
            Direction::Output => SubscriptionEventFacility::Sink,
        };
        let is_new = event.event_facility == facility && event.event_type == SubscriptionEventType::New;
        let is_default = event.event_facility == SubscriptionEventFacility::Server;
        if self.stream.is_none() && (is_new || is_default) {
            self.open()
        } else if self.is_substitute && is_new {
            self.return_to_wanted()
        } else {
            Ok(())
        }
    }

    /// The device that is stood in for may be back.
    fn return_to_wanted(&mut self) -> Result<(), Failure> {
        let Some(name) = self.wanted_name() else { return Ok(()) };
        match self.create(Some(&name)) {
            Ok(opened) => {
                let before = self.stream.take();
                self.start(opened, false)?;
                before.map_or(Ok(()), |before| self.close(before.channel))
            }
            Err(Failure::Refused(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// What the server calls the device that is wanted, if one is that the server may know.
    fn wanted_name(&self) -> Option<CString> {
        match self.orders.wanted() {
            Wanted::Default => None,
            Wanted::Named(id) => id.name_at(HOST).and_then(|name| CString::new(name).ok()),
        }
    }

    fn handle_time(&mut self, now: Instant) -> Result<(), Failure> {
        if self.retry.is_some_and(|retry| retry <= now) {
            return self.open();
        }
        self.handle_calm(now)?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !stream.latency.is_due(now) {
            return Ok(());
        }
        let params = LatencyParams { channel: stream.channel, now: SystemTime::now() };
        let command = match E::DIRECTION {
            Direction::Input => Command::GetRecordLatency(params),
            Direction::Output => Command::GetPlaybackLatency(params),
        };
        let number = self.server.send(&command)?;
        stream.latency.handle_asked(number);
        Ok(())
    }

    fn handle_reply(&mut self, number: u32, payload: &[u8]) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !stream.latency.is_asked(number) {
            return Ok(());
        }
        let (device_us, bytes) = match E::DIRECTION {
            Direction::Input => {
                let reply: RecordLatency = self.server.parse(payload)?;
                (reply.source_usec, reply.write_offset - reply.read_offset)
            }
            Direction::Output => {
                let reply: PlaybackLatency = self.server.parse(payload)?;
                (reply.sink_usec, reply.write_offset - reply.read_offset)
            }
        };
        let waiting_us = u64::try_from(bytes).unwrap_or(0) * 1_000_000 / u64::from(SAMPLE_RATE * FRAME);
        stream.latency.handle_answer::<E>(Instant::now(), Duration::from_micros(device_us + waiting_us));
        Ok(())
    }
}

fn text(name: Option<&CStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
