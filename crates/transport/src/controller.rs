//! A congestion window that stays as it is.
//!
//! Voice sends at the pace of speech, not of the network, so a window that shrinks at each loss and grows only while
//! it is full ends at its smallest and holds frames back for most of a second. Calls keep a constant window; what
//! adapts to the network is the codec.

use quinn::congestion::{Controller, ControllerFactory};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that a call may have in flight: three seconds at 320 kbit/s, far more than a call sends in a round trip and
/// little enough that a stream cannot fill a bottleneck's queue for long.
pub(crate) const CALL_WINDOW_BYTES: u64 = 128 * 1024;

/// Makes [`ConstantWindow`]s.
#[derive(Debug)]
pub(crate) struct ConstantWindowFactory;

impl ControllerFactory for ConstantWindowFactory {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(ConstantWindow)
    }
}

/// Always allows [`CALL_WINDOW_BYTES`] in flight.
#[derive(Debug, Clone)]
pub(crate) struct ConstantWindow;

impl Controller for ConstantWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        CALL_WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        CALL_WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_loss_shrinks_the_window() {
        let now = Instant::now();
        let mut controller = Arc::new(ConstantWindowFactory).build(now, 1200);
        let before = controller.window();
        for second in 0..1000 {
            let later = now + Duration::from_secs(second);
            controller.on_congestion_event(later, now, second % 2 == 0, 1200);
            controller.on_mtu_update(1200);
        }
        assert_eq!(controller.window(), before);
        assert_eq!(controller.clone_box().window(), before);
    }
}
