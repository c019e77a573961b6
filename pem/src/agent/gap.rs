//! When there was nothing that captured: told in parts while it lasts, so that a result at any moment can say so.

use crate::input::Gap;

/// Reason in `data_loss`.
const HELPER_AWAY: &str = "helper_away";
/// A helper that is started together with the agent takes a second or two to load and attach. What came before both is no
/// gap but the time before Pyxis; from here on it is one, and told from the agent's start.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How often a gap that goes on is told: a day without a helper is some 17,000 parts, and a range that ends now lacks the
/// last part at most.
const TELL_NS: u64 = 5_000_000_000;

/// What is to be told of times without capture.
#[derive(Debug, Default)]
pub struct Gaps {
    open: Option<Open>,
    /// When the programs of the last helper were attached; `None` before the first.
    attached_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Told up to here.
    told_ns: u64,
    /// When the next part is due.
    due_ns: u64,
    /// It may yet turn out to be no gap.
    patient: bool,
}

impl Gaps {
    /// There is no helper yet, and there should be one.
    pub fn expecting(now_ns: u64) -> Self {
        Self { open: Some(Open { told_ns: now_ns, due_ns: now_ns + PATIENCE_NS, patient: true }), attached_ns: None }
    }

    /// The helper is gone; until `seen_ns` it was there.
    pub fn detached(&mut self, seen_ns: u64) {
        self.open.get_or_insert(Open { told_ns: seen_ns, due_ns: 0, patient: false });
    }

    /// Time passed.
    pub fn tick(&mut self, now_ns: u64) -> Option<Gap> {
        let open = self.open.as_mut().filter(|open| now_ns >= open.due_ns)?;
        open.due_ns = now_ns + TELL_NS;
        open.patient = false;
        open.tell(now_ns)
    }

    /// There is a helper, whose programs capture since `attached_ns`. The one that was there before has lost nothing: its
    /// ring was only not read.
    pub fn attached(&mut self, attached_ns: u64, now_ns: u64) -> Option<Gap> {
        let before = self.attached_ns.replace(attached_ns);
        let mut open = self.open.take()?;
        let Some(before) = before else {
            return if open.patient { None } else { open.tell(attached_ns) };
        };
        if before == attached_ns {
            return None;
        }
        let to_ns = attached_ns.clamp(open.told_ns, now_ns.max(open.told_ns));
        Some(Gap { from_ns: open.told_ns, to_ns, reason: HELPER_AWAY.into(), reloaded: true })
    }

    /// The agent ends.
    pub fn end(&mut self, now_ns: u64) -> Option<Gap> {
        self.open.take().filter(|open| !open.patient)?.tell(now_ns)
    }
}

impl Open {
    fn tell(&mut self, to_ns: u64) -> Option<Gap> {
        let from_ns = self.told_ns;
        self.told_ns = to_ns.max(from_ns);
        (to_ns > from_ns).then(|| Gap { from_ns, to_ns, reason: HELPER_AWAY.into(), reloaded: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn span(gap: Option<Gap>) -> Option<(u64, u64, bool)> {
        gap.map(|gap| (gap.from_ns / S, gap.to_ns / S, gap.reloaded))
    }

    #[test]
    fn a_helper_that_comes_with_the_agent_leaves_no_gap() {
        let mut gaps = Gaps::expecting(100 * S);
        assert_eq!(gaps.tick(109 * S), None);
        assert_eq!(gaps.attached(102 * S, 109 * S), None);
        assert_eq!(gaps.tick(200 * S), None);
        assert_eq!(gaps.end(300 * S), None);
    }

    #[test]
    fn a_helper_that_does_not_come_is_missed_from_the_agents_start() {
        let mut gaps = Gaps::expecting(100 * S);
        assert_eq!(span(gaps.tick(110 * S)), Some((100, 110, false)));
        assert_eq!(gaps.tick(114 * S), None);
        assert_eq!(span(gaps.tick(115 * S)), Some((110, 115, false)));
        // The programs of the first helper are the first: nothing begins again.
        assert_eq!(span(gaps.attached(117 * S, 118 * S)), Some((115, 117, false)));
        assert_eq!(gaps.tick(200 * S), None);
    }

    #[test]
    fn another_helper_ends_the_gap_when_its_programs_are_attached() {
        let mut gaps = Gaps::expecting(100 * S);
        gaps.attached(101 * S, 101 * S);
        gaps.detached(200 * S);
        assert_eq!(span(gaps.tick(201 * S)), Some((200, 201, false)));
        gaps.detached(205 * S);
        assert_eq!(span(gaps.attached(203 * S, 204 * S)), Some((201, 203, true)));
        // Told further than it went: the rest is only that all begins again.
        gaps.detached(300 * S);
        assert_eq!(span(gaps.tick(301 * S)), Some((300, 301, false)));
        assert_eq!(span(gaps.attached(300 * S, 302 * S)), Some((301, 301, true)));
    }

    #[test]
    fn the_same_helper_again_has_lost_nothing() {
        let mut gaps = Gaps::expecting(100 * S);
        gaps.attached(90 * S, 101 * S);
        gaps.detached(200 * S);
        assert_eq!(gaps.attached(90 * S, 204 * S), None);
        assert_eq!(gaps.tick(300 * S), None);
    }

    #[test]
    fn an_agent_that_ends_tells_the_rest() {
        let mut gaps = Gaps::expecting(100 * S);
        gaps.attached(101 * S, 101 * S);
        gaps.detached(200 * S);
        assert_eq!(span(gaps.end(202 * S)), Some((200, 202, false)));
    }
}
