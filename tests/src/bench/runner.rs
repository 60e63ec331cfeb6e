//! Runs one recipe, and believes no figure whose counters and bytes are not what they must be.

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    object::{BYTES, Bench, Ran},
    recipe::{Program, Recipe},
    world::Balancer,
};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// To the kernel, as it came.
    Passed,
    /// Back, as it came.
    Sent,
    /// Back, with other MAC addresses.
    Rewritten,
    /// Back, in an IPv4 tunnel to a backend.
    Encapsulated,
    /// Back, in GUE over IPv4 to a backend.
    Gue,
    /// Back, with another destination and true checksums.
    Translated,
    /// Back to where it came from, as an answer of the program.
    Answered,
}

impl Expect {
    /// Bytes in front of the packet: an IPv4 header, and with GUE (draft-ietf-intarea-gue) UDP and four bytes more.
    fn outer(self) -> usize {
        match self {
            Self::Encapsulated => 20,
            Self::Gue => 20 + 8 + 4,
            Self::Passed | Self::Sent | Self::Rewritten | Self::Translated | Self::Answered => 0,
        }
    }
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// What a run takes at least, so that the kernel's whole nanoseconds and the start of a run do not matter.
const RUN_NANOSECONDS: u64 = 60_000_000;
const MOST_REPEATS: u64 = 1_000_000;
/// Repeats of a run that is not measured.
const CHUNK: u32 = 1 << 20;

/// A recipe, loaded and warm.
pub(super) struct Runner {
    recipe: Recipe,
    bench: Bench,
    /// Run without the wrapper.
    bare: Option<&'static str>,
    pub(super) balancer: Option<Balancer>,
    expect: Option<Expect>,
    repeats: u32,
}

impl Runner {
    pub(super) fn new(
        recipe: Recipe,
        bench: Bench,
        bare: Option<&'static str>,
        balancer: Option<Balancer>,
    ) -> Self {
        Self { recipe, bench, bare, balancer, expect: None, repeats: 1 }
    }

    /// Lets all frames come before anything is measured, and finds out how many repeats make a run.
    pub(super) fn warm_up(&mut self, frames: u32) -> Result<()> {
        self.expect = Some(self.recipe.expect()?);
        let mut left = frames;
        let mut nanoseconds = 1;
        while left > 0 {
            let ran = self.verified(left.min(CHUNK))?;
            nanoseconds = ran.duration.as_nanos().max(1) as u64;
            left = left.saturating_sub(CHUNK);
        }
        let ran = self.verified(20_000)?;
        let nanoseconds = nanoseconds.max(ran.duration.as_nanos() as u64);
        self.repeats = (RUN_NANOSECONDS / nanoseconds).clamp(100_000, MOST_REPEATS) as u32;
        Ok(())
    }

    /// Nanoseconds for one packet, wrapper included.
    pub(super) fn measure(&mut self) -> Result<f64> {
        Ok(self.verified(self.repeats)?.duration.as_nanos() as f64)
    }

    fn verified(&mut self, repeats: u32) -> Result<Ran> {
        self.run_and_check(repeats).with_context(|| format!("{:?}", self.recipe))
    }

    fn run_and_check(&mut self, repeats: u32) -> Result<Ran> {
        let before = self.counted()?;
        let ran = match self.bare {
            Some(name) => self.bench.run_bare(name, repeats)?,
            None => self.bench.run(repeats)?,
        };
        let after = self.counted()?;
        let expect = self.expect.context("not warmed up")?;
        let moved = |what: fn(&Counts) -> u64| what(&after).wrapping_sub(what(&before));
        let (forwarded, passed, other) = (moved(|c| c.forwarded), moved(|c| c.passed), moved(|c| c.other));
        let answered = moved(|c| c.answered);
        let all = u64::from(repeats);
        let want = match expect {
            Expect::Passed => (0, all, 0, 0),
            Expect::Answered => (0, 0, all, 0),
            _ => (all, 0, 0, 0),
        };
        let counts = match &self.recipe.program {
            Program::Lb(_) => true,
            Program::Plain(name) => *name == "plain" && expect == Expect::Encapsulated,
            Program::Bare(_) | Program::Floor(_) => false,
        };
        ensure!(
            !counts || (forwarded, passed, answered, other) == want,
            "of {repeats} packets {forwarded} were forwarded, {passed} passed, {answered} answered, {other} counted \
             otherwise"
        );
        self.check_output(expect, &ran)?;
        Ok(ran)
    }

    fn counted(&mut self) -> Result<Counts> {
        match (&self.recipe.program, &self.balancer) {
            (Program::Lb(_), Some(balancer)) => {
                let (forwarded, reasons) = balancer.counted()?;
                let mut counts = Counts { forwarded, ..Counts::default() };
                for (name, n) in reasons {
                    match name {
                        "not_service" | "no_such_port" => counts.passed += n,
                        "echo_reply" => counts.answered += n,
                        _ => counts.other += n,
                    }
                }
                Ok(counts)
            }
            (Program::Plain(_), _) => {
                Ok(Counts { forwarded: self.bench.plain_packets()?, ..Counts::default() })
            }
            _ => Ok(Counts::default()),
        }
    }

    fn check_output(&self, expect: Expect, ran: &Ran) -> Result<()> {
        let code = if expect == Expect::Passed { XDP_PASS } else { XDP_TX };
        ensure!(ran.code == code, "the program returned {} instead of {code}", ran.code);
        let (frame, output) = (&self.bench.source.frame, &ran.output);
        let bytes = BYTES + expect.outer();
        ensure!(output.len() == bytes, "the frame has {} bytes instead of {bytes}", output.len());
        let unchanged = match expect {
            Expect::Passed | Expect::Sent => &output[..],
            Expect::Rewritten => &output[12..],
            Expect::Encapsulated | Expect::Gue => check_outer(output, expect)?,
            Expect::Answered => {
                ensure!(output[26..30] == frame[30..34], "the answer does not come from the VIP");
                ensure!(output[34] == 0, "ICMP type {} instead of an echo reply", output[34]);
                ensure!(sum_of(&output[14..34]) == 0xffff, "the checksum of the IP header is wrong");
                return Ok(());
            }
            Expect::Translated => {
                ensure!(output[30..34] != frame[30..34], "the destination is as it was");
                ensure!(sum_of(&output[14..34]) == 0xffff, "the checksum of the IP header is wrong");
                return Ok(());
            }
        };
        let mut want = frame[BYTES - unchanged.len()..].to_vec();
        if self.bare.is_none() && self.bench.source.varies() {
            // Addresses and checksum are another frame's than the first; they must be true all the same.
            let shift = BYTES - unchanged.len();
            let range = if self.bench.source.is_v6() { 22..54 } else { 24..34 };
            let range = range.start - shift..range.end - shift;
            if !self.bench.source.is_v6() {
                ensure!(sum_of(&unchanged[14 - shift..34 - shift]) == 0xffff, "a wrong checksum within");
            }
            want[range.clone()].copy_from_slice(&unchanged[range]);
        }
        ensure!(unchanged == want, "bytes that must stay as they are do not: {output:02x?}");
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    forwarded: u64,
    passed: u64,
    answered: u64,
    other: u64,
}

/// The ones' complement sum of 16-bit words.
fn sum_of(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The outer header is true; the rest is the packet within.
fn check_outer(output: &[u8], expect: Expect) -> Result<&[u8]> {
    let outer = &output[14..34];
    let length = usize::from(u16::from_be_bytes([outer[2], outer[3]]));
    ensure!(output[12..14] == [8, 0] && outer[0] == 0x45, "no IPv4 header in front: {outer:02x?}");
    ensure!(length == output.len() - 14, "the outer header says {length} bytes");
    ensure!(sum_of(outer) == 0xffff, "the checksum of the outer header is wrong: {outer:02x?}");
    let carried = if expect == Expect::Gue { [17, 17] } else { [4, 41] };
    if !carried.contains(&outer[9]) {
        bail!("the outer header carries protocol {}", outer[9]);
    }
    Ok(&output[14 + expect.outer()..])
}
