//! Registration, sign-in, devices and their renewal.

use crate::database::{next_serial, users};
use crate::state::{App, Refusal};
use crate::throttle::NetworkPrefix;
use crate::ticket::{self, AddDeviceTicket, SignInTicket, TICKET_LIFE};
use ahoy_identity::opaque::ServerSetup;
use ahoy_identity::verify;
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement};
use ahoy_protocol::login::{
    Account, AddDevice, Credentials, LoginError, RegisterChallenge, RegisterFinish, RegisterStart, Renew, SignInChallenge, SignInFinish,
    SignInStart,
};
use ahoy_protocol::record::DEVICES_MAX;
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{Blob, DeviceKey, List, Name, Signed, UnixMillis, UserKey};
use sqlx::AnyConnection;
use std::sync::Arc;
use std::time::Duration;

/// Begins a registration.
pub(crate) async fn register_start(app: Arc<App>, from: NetworkPrefix, request: RegisterStart) -> Result<RegisterChallenge, Refusal> {
    app.throttle().register(app.now(), &request.name, from).map_err(slow_down)?;
    let existing = users::find(&mut *app.database.read().await?, &request.name).await?;
    // For a name that has a password, an answer here would let one test guesses against an old sign-in challenge, unthrottled.
    let epoch = free_epoch(existing.as_ref(), &request.name, app.now())?;
    let opaque = app.keys.opaque.register(&request.name, &request.opaque).map_err(|_| malformed_opaque())?;
    Ok(RegisterChallenge { opaque, epoch })
}

/// Ends a registration.
pub(crate) async fn register_finish(app: Arc<App>, from: NetworkPrefix, request: RegisterFinish) -> Result<Credentials, Refusal> {
    let now = app.now();
    app.throttle().register(now, &request.name, from).map_err(slow_down)?;
    let record = ServerSetup::accept_record(&request.opaque).map_err(|_| malformed_opaque())?;
    if request.backup.is_empty() {
        return Err(Refusal::because("the backup of the user key is empty"));
    }
    let mut write = app.database.write().await?;
    let existing = users::find(&mut write, &request.name).await?;
    let epoch = free_epoch(existing.as_ref(), &request.name, now)?;
    if existing.as_ref().is_some_and(|existing| existing.user == request.user) {
        return Err(Refusal::because("the user key has been used before"));
    }
    let statement = check_statement(&request.device, &request.user, &request.name, epoch, now)?;
    check_device_free(&mut write, &request.name, &statement.device).await?;
    let user = users::User {
        name: request.name,
        record,
        user: request.user,
        epoch,
        serial: next_serial(&mut write).await?,
        backup: request.backup.into_vec(),
        disabled: false,
        free_from: None,
        created: existing.map_or(now, |existing| existing.created),
    };
    users::put(&mut write, &user).await?;
    users::put_device(&mut write, &statement, &request.device, now).await?;
    write.commit().await?;
    tracing::info!("an account was registered");
    credentials(&app, &user, &statement.device, now).await
}

/// Begins a sign-in. For a name that nobody has, the answer looks the same.
pub(crate) async fn sign_in_start(app: Arc<App>, from: NetworkPrefix, request: SignInStart) -> Result<SignInChallenge, Refusal> {
    let now = app.now();
    app.throttle().sign_in(now, &request.name, from).map_err(slow_down)?;
    let user = users::find(&mut *app.database.read().await?, &request.name).await?.filter(|user| !user.record.is_empty());
    let record = user.as_ref().map(|user| user.record.as_slice());
    let (opaque, state) = app.keys.opaque.start_sign_in(&request.name, record, &request.opaque).map_err(|_| malformed_opaque())?;
    let state = Blob::new(state).ok_or(LoginError::Internal)?;
    let ticket = SignInTicket { name: request.name, epoch: user.map_or(0, |user| user.epoch), state, not_after: now.plus(TICKET_LIFE) };
    Ok(SignInChallenge { opaque, ticket: ticket::seal(&app.keys.ticket, &ticket)? })
}

/// Ends a sign-in: the password was right.
pub(crate) async fn sign_in_finish(app: Arc<App>, from: NetworkPrefix, request: SignInFinish) -> Result<Account, Refusal> {
    let now = app.now();
    let ticket: SignInTicket = ticket::open(&app.keys.ticket, &request.ticket, now)?;
    ServerSetup::finish_sign_in(&ticket.name, &ticket.state, &request.opaque).map_err(|_| LoginError::Credentials)?;
    app.throttle().proved(now, &ticket.name, from);
    let mut read = app.database.read().await?;
    let user = account(&mut read, &ticket.name, ticket.epoch).await?;
    let devices = device_certificates(&app, &mut read, &user, now).await?;
    let ticket = AddDeviceTicket { name: user.name.clone(), epoch: user.epoch, not_after: now.plus(TICKET_LIFE) };
    Ok(Account {
        ticket: ticket::seal(&app.keys.ticket, &ticket)?,
        certificate: app.issuer.user(&user.name, user.user, user.epoch, user.serial, now)?,
        backup: Blob::new(user.backup).ok_or(LoginError::Internal)?,
        devices: List::first_of(devices.into_iter().map(|(_, certificate)| certificate)),
    })
}

/// Adds the device of somebody who has just proved the password.
pub(crate) async fn add_device(app: Arc<App>, _from: NetworkPrefix, request: AddDevice) -> Result<Credentials, Refusal> {
    let now = app.now();
    let ticket: AddDeviceTicket = ticket::open(&app.keys.ticket, &request.ticket, now)?;
    let mut write = app.database.write().await?;
    let user = account(&mut write, &ticket.name, ticket.epoch).await?;
    let statement = check_statement(&request.device, &user.user, &user.name, user.epoch, now)?;
    check_device_free(&mut write, &user.name, &statement.device).await?;
    let devices = users::devices(&mut write, &user.name).await?;
    if devices.iter().filter(|device| device.device != statement.device).count() >= DEVICES_MAX {
        return Err(LoginError::TooManyDevices.into());
    }
    users::put_device(&mut write, &statement, &request.device, now).await?;
    write.commit().await?;
    tracing::info!("a device was added to an account");
    credentials(&app, &user, &statement.device, now).await
}

/// Gives a device fresh certificates.
pub(crate) async fn renew(app: Arc<App>, _from: NetworkPrefix, request: Renew) -> Result<Credentials, Refusal> {
    let now = app.now();
    let claims = request.request.claims().map_err(|_| Refusal::because("the request cannot be read"))?;
    let asked = verify(&request.request, claims.device.as_bytes()).map_err(|_| Refusal::because("the device did not sign the request"))?;
    if asked.network != app.keys.network {
        return Err(Refusal::because("it is meant for another network"));
    }
    check_time(asked.issued, now)?;
    let mut read = app.database.read().await?;
    let device = users::device(&mut read, &asked.device).await?.filter(|device| !device.revoked).ok_or(LoginError::UnknownDevice)?;
    let user = users::find(&mut read, &device.name).await?.ok_or(LoginError::UnknownDevice)?;
    drop(read);
    if user.disabled {
        return Err(LoginError::Disabled.into());
    }
    credentials(&app, &user, &asked.device, now).await
}

/// The epoch of a registration, if the name may be registered.
fn free_epoch(existing: Option<&users::User>, name: &Name, now: UnixMillis) -> Result<u32, Refusal> {
    let Some(existing) = existing else { return Ok(1) };
    match existing.free_from {
        None => Err(LoginError::NameTaken(name.clone()).into()),
        Some(_) if existing.disabled => Err(LoginError::Disabled.into()),
        Some(free_from) if now < free_from => {
            let hours = free_from.since(now).as_secs() / 3600 + 1;
            Err(Refusal::because(&format!("the account was reset and its name can be registered again in {hours} h")))
        }
        Some(_) => existing.epoch.checked_add(1).ok_or(LoginError::Internal.into()),
    }
}

/// The account for which a ticket was given, if it is still that account.
async fn account(connection: &mut AnyConnection, name: &Name, epoch: u32) -> Result<users::User, Refusal> {
    let user = users::find(connection, name).await?.filter(|user| user.epoch == epoch && user.free_from.is_none());
    let user = user.ok_or(LoginError::TicketExpired)?;
    if user.disabled { Err(LoginError::Disabled.into()) } else { Ok(user) }
}

fn check_statement(
    signed: &Signed<DeviceStatement>,
    user: &UserKey,
    name: &Name,
    epoch: u32,
    now: UnixMillis,
) -> Result<DeviceStatement, Refusal> {
    let statement = verify(signed, user.as_bytes()).map_err(|_| Refusal::because("the user key did not sign the device"))?;
    if statement.name != *name || statement.epoch != epoch {
        return Err(Refusal::because("the device was signed for another account, or for an earlier key of it"));
    }
    check_time(statement.added, now)?;
    Ok(statement)
}

/// A device belongs to one account for ever: nobody proves to hold the key that is added, so a device that counts no more
/// could else be claimed under another name.
async fn check_device_free(connection: &mut AnyConnection, name: &Name, device: &DeviceKey) -> Result<(), Refusal> {
    match users::device(connection, device).await? {
        Some(existing) if existing.name != *name => Err(Refusal::because("the device belongs to another account; use another data folder")),
        _ => Ok(()),
    }
}

/// Refuses a time that is too far from the server's.
pub(crate) fn check_time(time: UnixMillis, now: UnixMillis) -> Result<(), Refusal> {
    if time.since(now).max(now.since(time)) > CLOCK_AHEAD_MAX {
        Err(Refusal::because("its time is more than five minutes off"))
    } else {
        Ok(())
    }
}

/// Fresh certificates of all devices of an account.
async fn device_certificates(
    app: &App,
    connection: &mut AnyConnection,
    user: &users::User,
    now: UnixMillis,
) -> Result<Vec<(DeviceKey, Signed<DeviceCertificate>)>, Refusal> {
    let devices = users::devices(connection, &user.name).await?;
    let certify = |device: users::Device| {
        let certificate = app.issuer.device(user.user, device.statement, device.serial, now)?;
        Ok((device.device, certificate))
    };
    devices.into_iter().map(certify).collect()
}

async fn credentials(app: &App, user: &users::User, device: &DeviceKey, now: UnixMillis) -> Result<Credentials, Refusal> {
    let devices = device_certificates(app, &mut *app.database.read().await?, user, now).await?;
    let own = devices.iter().find(|(key, _)| key == device).ok_or(LoginError::UnknownDevice)?.1.clone();
    Ok(Credentials {
        user: app.issuer.user(&user.name, user.user, user.epoch, user.serial, now)?,
        device: own,
        devices: List::first_of(devices.into_iter().map(|(_, certificate)| certificate)),
        grant: app.issuer.grant(*device, now)?,
        roster: app.roster.current(now).await?.signed.clone(),
    })
}

/// The refusal of one who came too often.
pub(crate) fn slow_down(wait: Duration) -> Refusal {
    // Rounded up: whoever comes back at the second it says is let in.
    let retry_after_s = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    LoginError::SlowDown { retry_after_s }.into()
}

fn malformed_opaque() -> Refusal {
    LoginError::BadRequest(ahoy_protocol::Text::fitting("malformed password message")).into()
}
