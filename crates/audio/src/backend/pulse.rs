//! Devices by way of the PulseAudio protocol, which PipeWire speaks too.
//!
//! One thread for each device waits for the server, answers it, and runs the callback: what the server has to say about
//! devices that come, go and move is heard at once, and nothing is between the server and the callback.

mod connection;
mod latency;
mod reserve;
mod session;

use std::ffi::CStr;

use pulseaudio::protocol::{Command, ServerInfo, SinkInfoList, SourceInfoList};

use self::connection::{Connection, Failure};
use super::Ended;
use crate::callback::End;
use crate::device::{DeviceId, DeviceInfo, DeviceList};
use crate::link::{Orders, Post};
use crate::state::DeviceState;

/// What ids of devices of a sound server begin with.
const HOST: &str = "pulseaudio";

/// All devices. `None` if there is no sound server.
pub(super) fn devices() -> Option<DeviceList> {
    list(&mut Connection::open().ok()?).ok()
}

fn list(server: &mut Connection) -> Result<DeviceList, Failure> {
    let defaults: ServerInfo = server.ask(&Command::GetServerInfo)?;
    let sinks: SinkInfoList = server.ask(&Command::GetSinkInfoList)?;
    let sources: SourceInfoList = server.ask(&Command::GetSourceInfoList)?;
    let info = |name: &CStr, description: Option<&CStr>, default: Option<&CStr>, is_monitor| DeviceInfo {
        id: DeviceId::of(HOST, &name.to_string_lossy()),
        name: description.unwrap_or(name).to_string_lossy().into_owned(),
        is_default: default == Some(name),
        is_monitor,
    };
    let output = sinks.iter().map(|sink| info(&sink.name, sink.description.as_deref(), defaults.default_sink_name.as_deref(), false));
    let input = sources.iter().map(|source| {
        let is_monitor = source.monitor_of_sink_index.is_some();
        info(&source.name, source.description.as_deref(), defaults.default_source_name.as_deref(), is_monitor)
    });
    Ok(DeviceList { inputs: input.collect(), outputs: output.collect() })
}

/// Keeps a device open, as ordered. `None` if there is no sound server.
pub(super) fn run<E: End>(orders: &Orders, post: &Post<E>) -> Option<Ended> {
    let server = Connection::open().ok()?;
    let ended = session::run(server, orders, post);
    Some(ended.unwrap_or_else(|failure| {
        post.set(DeviceState::Failed { reason: failure.to_string() });
        Ended::Failed
    }))
}
