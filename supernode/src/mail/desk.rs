//! The desk: one thread that has the store, and does what it is asked in batches.
//!
//! What was asked while the disk was busy is written together, so that waiting for the disk costs each of many less than it would alone. An
//! answer says that the disk has it.

use ahoy_mailbox::{MailError, MailStore, Totals};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Most things that wait to be done. Each is a few hundred bytes, or a page of envelopes.
const WAITING_MAX: usize = 1024;
/// Most things that are done in one batch, so that the first does not wait for long.
const BATCH_MAX: usize = 64;

/// Why something was not done.
#[derive(Debug, Error)]
pub(crate) enum DeskError {
    /// There is too much to do, or this supernode is about to stop.
    #[error("the mail store has too much to do")]
    Busy,
    /// The store could not do it, or the disk could not write it.
    #[error(transparent)]
    Store(#[from] MailError),
    /// The disk could not write the batch that it was part of.
    #[error("the mail store could not be written")]
    Unwritten,
}

/// Does the work, and returns what tells the asker how it went once it is known whether that was written.
type Job = Box<dyn FnOnce(&mut MailStore) -> Reply + Send>;
type Reply = Box<dyn FnOnce(bool) + Send>;

/// Where the store is asked.
pub(crate) struct Desk {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    totals: Arc<Mutex<Totals>>,
    closed: tokio::sync::Mutex<oneshot::Receiver<()>>,
}

impl Desk {
    /// Opens for business. The thread ends with the desk.
    pub(crate) fn start(store: MailStore) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let (closing, closed) = oneshot::channel();
        let totals = Arc::new(Mutex::new(store.totals().unwrap_or_default()));
        let shown = totals.clone();
        std::thread::spawn(move || {
            work(store, waiting, &shown);
            let _ = closing.send(());
        });
        Self { jobs: Mutex::new(Some(jobs)), totals, closed: closed.into() }
    }

    /// Does something with the store.
    pub(crate) async fn ask<T, W>(&self, work: W) -> Result<T, DeskError>
    where
        T: Send + 'static,
        W: FnOnce(&mut MailStore) -> Result<T, MailError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let done = work(store);
            Box::new(move |is_written| {
                let result = if is_written { done.map_err(DeskError::Store) } else { Err(DeskError::Unwritten) };
                // Who has gone does not need to know.
                let _ = tell.send(result);
            })
        });
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.and_then(|jobs| jobs.try_send(job).ok()).ok_or(DeskError::Busy)?;
        told.await.unwrap_or(Err(DeskError::Busy))
    }

    /// How much there was after the last batch.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what was asked so far, and lets go of the file.
    pub(crate) async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error says that it was closed before.
        let _ = (&mut *self.closed.lock().await).await;
    }
}

fn work(mut store: MailStore, mut waiting: mpsc::Receiver<Job>, totals: &Mutex<Totals>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < BATCH_MAX
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        let mut replies = Vec::with_capacity(jobs.len());
        let written = store.together(|store| replies.extend(jobs.into_iter().map(|job| job(store))));
        if let Err(error) = &written {
            tracing::warn!(%error, "mail could not be written");
        }
        if let Ok(now) = store.totals() {
            *totals.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        replies.into_iter().for_each(|reply| reply(written.is_ok()));
    }
}
