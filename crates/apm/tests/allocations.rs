//! What the chain allocates once it runs. Nothing in it runs in a sound device's callback, so an allocation is no fault; but it should be
//! known how many there are, that they are not ours, and that nothing grows.

use ahoy_apm::{Apm, ApmSettings, BLOCK_SAMPLES, NoiseLevel};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the pointer comes from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations a block, and by how many bytes the memory grew over a second, in the steady state.
fn allocations(settings: ApmSettings) -> (f64, isize) {
    const BLOCKS: usize = 100;
    let mut apm = Apm::new(settings);
    let mut run = |blocks: usize| {
        for i in 0..blocks {
            let mut block = std::array::from_fn(|k| 0.1 * ((i * BLOCK_SAMPLES + k) as f32 * 0.05).sin());
            apm.render(&block);
            apm.capture(&mut block, 60);
        }
    };
    run(2 * BLOCKS);
    let (count, bytes) = (COUNT.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    run(BLOCKS);
    ((COUNT.load(Ordering::Relaxed) - count) as f64 / BLOCKS as f64, BYTES.load(Ordering::Relaxed) - bytes)
}

#[test]
fn the_stages_of_ours_allocate_nothing_and_nothing_grows() {
    let nothing = ApmSettings { echo: false, noise: NoiseLevel::Off, gain: false };
    let (base, growth) = allocations(nothing);
    println!("everything off: {base} a block");
    assert!(growth.abs() < 1_024, "{growth} bytes");
    let (noise, growth) = allocations(ApmSettings { noise: NoiseLevel::High, ..nothing });
    println!("noise suppressor: {noise} a block");
    assert!(growth.abs() < 1_024, "{growth} bytes");
    assert!((noise - base).abs() < 0.05, "the noise suppressor allocates: {noise} against {base}");
    let (all, growth) = allocations(ApmSettings::default());
    println!("everything on: {all} a block");
    assert!(growth.abs() < 16_384, "{growth} bytes");
}
