//! The ways, each a global BPF function: checked once and by itself by the verifier, called when it is needed.
//!
//! A call gives the context, how much of the frame is out of sight and what the detour said; the answer is the verdict,
//! or the next detour, in one word.

use aya_ebpf::bindings::xdp_md;
use lb_common::datapath::{Packet, Route, Verdict, Wanted, Way, Ways, straight, take};
use lb_ebpf::packet::Frame;

use crate::{fib, maps::Maps};

impl Ways<Frame> for Maps {
    #[inline(always)]
    fn straight(&self, packet: &mut Frame, _ingress: u32) -> Verdict {
        let bytes = packet.wire_length() as u32;
        Verdict::from_bits(way_straight(packet.context()), bytes)
    }

    #[inline(always)]
    fn way(&self, packet: &mut Frame, way: Way, argument: u32, _ingress: u32) -> Verdict {
        let bytes = packet.wire_length() as u32;
        let (context, skipped) = (packet.context(), packet.skipped() as u32);
        let bits = match way {
            Way::Announce => way_announce(context, skipped),
            Way::Tagged => way_tagged(context, skipped),
            Way::Show => way_show(context, skipped),
            Way::Odd4 => way_odd4(context, skipped),
            Way::Odd6 => way_odd6(context, skipped),
            Way::Echo => way_echo(context, skipped, argument),
            Way::Reply => way_reply(context, skipped),
            Way::Translate => way_translate(context, skipped, argument),
            Way::Reset => way_reset(context, skipped, argument),
            Way::Named => way_named(context, skipped, argument),
            Way::Server4 => way_server4(context, skipped, argument),
            Way::Server6 => way_server6(context, skipped, argument),
            Way::Quoted4 => way_quoted4(context, skipped, argument),
            Way::Quoted6 => way_quoted6(context, skipped, argument),
            Way::TooBig => way_too_big(context, skipped, argument),
        };
        let verdict = Verdict::from_bits(bits, bytes);
        if verdict.way().is_some() {
            packet.skip(verdict.hidden());
        }
        verdict
    }

    #[inline(always)]
    fn route(&self, packet: &mut Frame, wanted: &Wanted, ingress: u32) -> Route {
        fib::route(packet.context(), wanted, ingress)
    }
}

#[inline(always)]
fn run(context: *mut xdp_md, skipped: u32, argument: u32, way: Way) -> u64 {
    // SAFETY: the verifier lets only the context be passed here.
    let mut frame = unsafe { Frame::resume(context, skipped) };
    let ingress = frame.ingress();
    let verdict = take(&mut frame, &Maps, way, argument, ingress);
    verdict.hiding(frame.skipped()).to_bits()
}

/// The way of the many. It is a function too so that the stack that it needs is free again when a rare way follows: a
/// chain of functions has 512 bytes together, and older kernels (6.1 is one) round every frame up to 32.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn way_straight(context: *mut xdp_md) -> u64 {
    // SAFETY: as above.
    let mut frame = unsafe { Frame::of(context) };
    let ingress = frame.ingress();
    straight(&mut frame, &Maps, ingress).to_bits()
}

/// A way that is told nothing must not take the argument either: the compiler sees that nobody reads it and leaves its
/// register as it is, which the verifier refuses.
macro_rules! ways {
    ($( $name:ident = $way:ident; )*) => { $(
        #[doc = concat!("[`Way::", stringify!($way), "`].")]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(context: *mut xdp_md, skipped: u32) -> u64 {
            run(context, skipped, 0, Way::$way)
        }
    )* };
}

ways! {
    way_announce = Announce;
    way_tagged = Tagged;
    way_show = Show;
    way_odd4 = Odd4;
    way_odd6 = Odd6;
    way_reply = Reply;
}

/// A way that is told something takes the argument too.
macro_rules! ways_told {
    ($( $name:ident = $way:ident; )*) => { $(
        #[doc = concat!("[`Way::", stringify!($way), "`].")]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(context: *mut xdp_md, skipped: u32, argument: u32) -> u64 {
            run(context, skipped, argument, Way::$way)
        }
    )* };
}

ways_told! {
    way_echo = Echo;
    way_translate = Translate;
    way_reset = Reset;
    way_named = Named;
    way_server4 = Server4;
    way_server6 = Server6;
    way_quoted4 = Quoted4;
    way_quoted6 = Quoted6;
    way_too_big = TooBig;
}
