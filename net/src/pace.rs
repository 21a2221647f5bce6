//! How fast a bulk connection may send so that no queue builds up in front of a slow link: a little less than what the
//! link was seen to carry. A connection of its own is not enough, since both share the router's queue.
//!
//! The rate grows until less is acknowledged than is sent; that is what the link carries. From then on it is 9/10 of
//! that; once in a while, for one tick, 11/10, to see whether there is more, and then less, so that what this queued
//! goes. A round trip that is longer than after such a tick means a queue nonetheless, whoever made it: less for a
//! tick. That a link is best known by the best it has delivered is BBR's insight (Cardwell et al., 2016).
//!
//! Pure: numbers of the kernel go in, a rate comes out. Knows no socket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(40);
/// At the start, when a wrong rate has to be found out soon.
const FIRST_TICKS: Duration = Duration::from_millis(20);
/// Until TCP's slow start is over, that decides on links that carry less.
const FIRST_RATE: f64 = 25e6;
/// In a tick, two round trips, it doubles twice.
const SLOW_START: f64 = 4.0;
/// More than this times the best before, from one tick to the next: slow start goes on.
const STILL_GROWS: f64 = 1.25;
/// So many ticks that do not grow are a moment of TCP's own, as long as no queue says that the link is full.
const HICCUP_TICKS: u32 = 2;
const RATE_MIN: f64 = 64e3;
const CYCLE_TICKS: u32 = 24;
/// Of the first cycle after a rate was found: what was found in a bad moment is looked at again soon.
const FIRST_CYCLE_TICKS: u32 = 6;
/// Ticks whose best counts: two cycles, each with a probe.
const MEMORY_TICKS: usize = 2 * CYCLE_TICKS as usize;
const CALMS: usize = 4;

const GROW: f64 = 1.5;
const CRUISE: f64 = 0.9;
const PROBE: f64 = 1.1;
const DRAIN: f64 = 0.7;
const YIELD: f64 = 0.75;
/// Less than this part of what was sent is acknowledged: the link is full.
const FULL: f64 = 0.85;
/// Less than this part of what was sent, so many ticks in a row: the link became slower.
const SLOWER: f64 = 0.7;
const SLOWER_TICKS: u32 = 3;
/// More than this times the best before: there was room.
const ROOM: f64 = 1.05;
const QUEUE_US: f64 = 1_000.0;

/// What the kernel says of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    pub acked_bytes: u64,
    /// Written, but not sent yet; 0: the connection waits for us, not for the link.
    pub unsent_bytes: u32,
    pub rtt_us: u32,
    pub rtt_min_us: u32,
}

#[derive(Debug)]
pub struct Pace {
    rate: f64,
    starting: bool,
    /// Of the cycle: 0 probes, 1 drains.
    phase: u32,
    cycle_ticks: u32,
    delivered: VecDeque<f64>,
    short_ticks: u32,
    flat_ticks: u32,
    /// There was more to send than was sent, at `last`.
    is_full: bool,
    /// Round trips after the latest drains: the link without us.
    calm_us: VecDeque<f64>,
    last: Option<(Instant, u64)>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            rate: FIRST_RATE,
            starting: true,
            phase: 1,
            cycle_ticks: FIRST_CYCLE_TICKS,
            delivered: VecDeque::new(),
            short_ticks: 0,
            flat_ticks: 0,
            is_full: false,
            calm_us: VecDeque::new(),
            last: None,
        }
    }
}

fn remember(list: &mut VecDeque<f64>, value: f64, max: usize) {
    list.push_back(value);
    if list.len() > max {
        list.pop_front();
    }
}

fn is_queued(seen: Seen, calm_us: f64) -> bool {
    f64::from(seen.rtt_us) > 1.5 * calm_us + QUEUE_US
}

impl Pace {
    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate as u64
    }

    /// Whether `tick` may have something to do: a cheap question, for every write.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.is_full || self.last.is_none_or(|(at, _)| now.duration_since(at) >= self.tick_length())
    }

    fn tick_length(&self) -> Duration {
        if self.starting { FIRST_TICKS } else { TICK }
    }

    /// What is acknowledged from now on counts, if something waits to be sent.
    fn begin(&mut self, now: Instant, seen: Seen) {
        (self.last, self.is_full) = (Some((now, seen.acked_bytes)), seen.unsent_bytes > 0);
    }

    /// True when `rate` may have changed.
    pub fn tick(&mut self, now: Instant, seen: Seen) -> bool {
        let Some((at, acked)) = self.last.filter(|_| self.is_full) else {
            // Nothing waited until now: what was acknowledged so far says nothing of the link.
            let is_first = self.last.is_none();
            self.begin(now, seen);
            return is_first;
        };
        let took = now.duration_since(at);
        // What is sent now is acknowledged a round trip later.
        if took < self.tick_length() || took < Duration::from_micros(2 * u64::from(seen.rtt_min_us)) {
            return false;
        }
        self.begin(now, seen);
        let delivered = seen.acked_bytes.saturating_sub(acked) as f64 / took.as_secs_f64();
        let best = self.best();
        if seen.unsent_bytes == 0 && (self.starting || delivered <= best) {
            return false; // it says nothing of the link
        }
        remember(&mut self.delivered, delivered, MEMORY_TICKS);
        self.short_ticks = if delivered < SLOWER * self.rate { self.short_ticks + 1 } else { 0 };
        if self.short_ticks >= SLOWER_TICKS {
            // Or it lost segments and stood still for a moment: what it carries is looked for anew, from here.
            self.delivered.drain(..self.delivered.len().saturating_sub(SLOWER_TICKS as usize));
            (self.starting, self.short_ticks, self.rate) = (true, 0, self.best().max(RATE_MIN));
            return true;
        }
        if self.starting {
            self.start(delivered, best, seen);
        } else {
            self.cruise(delivered > ROOM * best, seen);
        }
        self.rate = self.rate.max(RATE_MIN);
        true
    }

    /// The most that was delivered lately, bytes a second. 0 as long as nobody asked for more than the link carries, or
    /// for so short that slow start was all there was.
    pub fn delivered(&self) -> u64 {
        if !self.starting { self.best() as u64 } else { 0 }
    }

    fn best(&self) -> f64 {
        self.delivered.iter().copied().fold(0.0, f64::max)
    }

    /// `before`: the best so far.
    fn start(&mut self, delivered: f64, before: f64, seen: Seen) {
        if delivered >= FULL * self.rate {
            (self.rate, self.flat_ticks) = (GROW * self.rate, 0);
            return;
        }
        if delivered > STILL_GROWS * before {
            // TCP's slow start may hold it back, not the link: on a long way it takes some round trips.
            (self.rate, self.flat_ticks) = ((SLOW_START * delivered).min(self.rate.max(FIRST_RATE)), 0);
            return;
        }
        self.flat_ticks += 1;
        if self.flat_ticks <= HICCUP_TICKS && !is_queued(seen, seen.rtt_min_us.into()) {
            return;
        }
        (self.starting, self.flat_ticks, self.phase, self.cycle_ticks) = (false, 0, 1, FIRST_CYCLE_TICKS);
        self.rate = DRAIN * self.best();
        remember(&mut self.calm_us, seen.rtt_min_us.into(), CALMS);
    }

    fn cruise(&mut self, had_room: bool, seen: Seen) {
        if self.phase == 1 {
            remember(&mut self.calm_us, seen.rtt_us.into(), CALMS);
        }
        if self.phase == 0 && had_room {
            (self.starting, self.rate) = (true, GROW * self.best());
            return;
        }
        self.phase += 1;
        if self.phase >= self.cycle_ticks {
            (self.phase, self.cycle_ticks) = (0, CYCLE_TICKS.min(2 * self.cycle_ticks));
        }
        let calm_us = self.calm_us.iter().copied().fold(f64::INFINITY, f64::min);
        self.rate = self.best()
            * match self.phase {
                0 => PROBE,
                1 => DRAIN,
                _ if is_queued(seen, calm_us) => YIELD,
                _ => CRUISE,
            };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `capacity` bytes a second with a queue without end, in steps of a millisecond.
    struct Link {
        capacity: f64,
        rtt_us: f64,
        queued: f64,
        acked: f64,
        /// The other end's acknowledgements come in bursts of so many ms, as over radio.
        burst_ms: u64,
        /// Of TCP's slow start, which doubles it each round trip: no more than this is under way. Infinite: it is over.
        window: f64,
        delivered: f64,
        now: Instant,
        ms: u64,
        queue_ms: Vec<f64>,
    }

    impl Link {
        fn new(capacity: f64, rtt_us: f64) -> Self {
            let (queued, acked, delivered, queue_ms) = (0.0, 0.0, 0.0, vec![]);
            let window = f64::INFINITY;
            Link { capacity, rtt_us, queued, acked, burst_ms: 1, window, delivered, now: Instant::now(), ms: 0, queue_ms }
        }

        /// `offered`: what the sender has to send, bytes a second.
        fn run(&mut self, pace: &mut Pace, ms: u64, offered: f64) -> f64 {
            let before = self.acked;
            for _ in 0..ms {
                self.now += Duration::from_millis(1);
                self.ms += 1;
                self.queued += (pace.rate() as f64).min(offered).min(self.window / self.rtt_us * 1e6) / 1e3;
                self.window *= 2f64.powf(1e3 / self.rtt_us);
                let out = self.queued.min(self.capacity / 1e3);
                self.queued -= out;
                self.delivered += out;
                if self.ms.is_multiple_of(self.burst_ms) {
                    self.acked += std::mem::take(&mut self.delivered);
                }
                let wait_ms = self.queued / self.capacity * 1e3;
                self.queue_ms.push(wait_ms);
                let rtt_us = (self.rtt_us + wait_ms * 1e3) as u32;
                let unsent_bytes = if offered > pace.rate() as f64 { 1 << 16 } else { 0 };
                let (acked_bytes, rtt_min_us) = (self.acked as u64, self.rtt_us as u32);
                pace.tick(self.now, Seen { acked_bytes, unsent_bytes, rtt_us, rtt_min_us });
            }
            (self.acked - before) / (ms as f64 / 1e3)
        }

        fn queue_ms_p95(&mut self) -> f64 {
            let mut sorted = std::mem::take(&mut self.queue_ms);
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() * 95 / 100]
        }
    }

    #[test]
    fn uses_most_of_a_link_and_leaves_no_queue() {
        for (capacity, rtt_us) in [(26e6, 2e3), (1e6, 5e3), (110e6, 400.0), (700e6, 100.0), (5e6, 80e3)] {
            let (mut link, mut pace) = (Link::new(capacity, rtt_us), Pace::default());
            link.run(&mut pace, 5_000, f64::INFINITY);
            link.queue_ms_p95();
            let rate = link.run(&mut pace, 10_000, f64::INFINITY);
            let queue_ms = link.queue_ms_p95();
            assert!(rate > 0.82 * capacity && rate < capacity, "{rate} of {capacity}");
            assert!(queue_ms < 2.0 + 0.1 * rtt_us / 1e3, "a queue of {queue_ms} ms at {capacity}");
        }
    }

    #[test]
    fn slow_start_is_not_taken_for_the_link() {
        for (capacity, rtt_us) in [(50e6, 11e3), (20e6, 40e3), (100e6, 5e3)] {
            let (mut link, mut pace) = (Link::new(capacity, rtt_us), Pace::default());
            link.window = 14_480.0;
            link.run(&mut pace, 4 * (rtt_us / 1e3) as u64, f64::INFINITY);
            assert_eq!(pace.delivered(), 0);
            link.run(&mut pace, 15 * (rtt_us / 1e3) as u64 + 200, f64::INFINITY);
            assert!(pace.best() > 0.8 * capacity, "{} of {capacity}", pace.best());
        }
    }

    #[test]
    fn a_short_transfer_over_a_long_way_shows_what_it_carries() {
        // A megabyte, as a probe sends; 50 MB/s are there.
        for rtt_us in [5e3, 11e3, 20e3] {
            let (mut link, mut pace) = (Link::new(50e6, rtt_us), Pace::default());
            link.window = 14_480.0;
            let mut ms = 0;
            while link.acked < 1e6 && ms < 500 {
                link.run(&mut pace, 1, f64::INFINITY);
                ms += 1;
            }
            assert!(ms < 12 * rtt_us as u64 / 1_000, "{ms} ms over {rtt_us} us");
        }
    }

    #[test]
    fn the_time_before_a_transfer_is_no_part_of_it() {
        // A stream is opened, which takes some small messages and round trips; then a megabyte follows at any moment.
        for before_ms in 1..60 {
            let (mut link, mut pace) = (Link::new(13e6, 10e3), Pace::default());
            link.run(&mut pace, before_ms, 1e3);
            link.window = 14_480.0;
            let ms = (1..500).find(|_| link.run(&mut pace, 1, f64::INFINITY) > 0.0 && link.acked > 1e6);
            assert!(ms.is_some_and(|ms| ms < 140), "{ms:?} ms for a megabyte after {before_ms} ms");
        }
    }

    #[test]
    fn a_hiccup_of_slow_start_is_not_taken_for_the_link() {
        for held_ms in [20, 30, 45] {
            let (mut link, mut pace) = (Link::new(13e6, 10e3), Pace::default());
            link.window = 14_480.0;
            link.run(&mut pace, 25, f64::INFINITY);
            let window = std::mem::replace(&mut link.window, 0.0);
            link.run(&mut pace, held_ms, f64::INFINITY);
            link.window = window;
            let ms = (1..500).find(|_| link.run(&mut pace, 1, f64::INFINITY) > 0.0 && link.acked > 1e6);
            assert!(ms.is_some_and(|ms| ms < 140), "{ms:?} ms for a megabyte after {held_ms} ms");
        }
    }

    #[test]
    fn bursts_of_acknowledgements_are_no_queue() {
        let (mut link, mut pace) = (Link::new(20e6, 3e3), Pace::default());
        link.burst_ms = 9;
        link.run(&mut pace, 5_000, f64::INFINITY);
        link.queue_ms_p95();
        let rate = link.run(&mut pace, 10_000, f64::INFINITY);
        assert!(rate > 0.75 * 20e6, "{rate}");
        assert!(link.queue_ms_p95() < 20.0);
    }

    #[test]
    fn follows_a_link_that_changes() {
        let (mut link, mut pace) = (Link::new(20e6, 2e3), Pace::default());
        link.run(&mut pace, 4_000, f64::INFINITY);
        link.capacity = 5e6;
        link.run(&mut pace, 6_000, f64::INFINITY);
        link.queue_ms_p95();
        let rate = link.run(&mut pace, 4_000, f64::INFINITY);
        assert!(rate > 0.8 * 5e6 && link.queue_ms_p95() < 5.0, "{rate}");
        link.capacity = 100e6;
        link.run(&mut pace, 6_000, f64::INFINITY);
        let rate = link.run(&mut pace, 4_000, f64::INFINITY);
        assert!(rate > 0.8 * 100e6, "{rate}");
    }

    #[test]
    fn a_moment_of_standstill_is_made_good_soon() {
        let (mut link, mut pace) = (Link::new(20e6, 2e3), Pace::default());
        link.run(&mut pace, 4_000, f64::INFINITY);
        link.capacity = 3e5;
        link.run(&mut pace, 300, f64::INFINITY);
        (link.capacity, link.queued) = (20e6, 0.0);
        link.run(&mut pace, 600, f64::INFINITY);
        let rate = link.run(&mut pace, 1_000, f64::INFINITY);
        assert!(rate > 0.75 * 20e6, "{rate}");
    }

    #[test]
    fn a_sender_with_little_to_send_is_not_taken_for_a_slow_link() {
        let (mut link, mut pace) = (Link::new(20e6, 2e3), Pace::default());
        link.run(&mut pace, 4_000, f64::INFINITY);
        link.run(&mut pace, 20_000, 1e5);
        let mut idle = Pace::default();
        Link::new(20e6, 2e3).run(&mut idle, 1_000, 1e5);
        assert_eq!(idle.delivered(), 0, "a link of which little was asked is not known");
        assert!(pace.rate() as f64 > 0.6 * 20e6, "{}", pace.rate());
    }

    #[test]
    fn asks_seldom() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let full = Seen { unsent_bytes: 1, ..Seen::default() };
        assert!(pace.is_due(now) && pace.tick(now, full));
        assert!(!pace.is_due(now + FIRST_TICKS / 2) && pace.is_due(now + FIRST_TICKS));
        let far = Seen { rtt_min_us: 200_000, ..full };
        assert!(!pace.tick(now + TICK, far), "nothing sent since is acknowledged yet");
    }
}
