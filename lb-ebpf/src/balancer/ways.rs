//! The rare ways, each a global BPF function: checked once and by itself by the verifier, called when it is needed.
//!
//! A call gives the context and how much of the frame is out of sight; the answer is the verdict in one word.

use aya_ebpf::bindings::xdp_md;
use lb_common::datapath::{Packet, Verdict, Way, Ways, take};
use lb_ebpf::packet::Frame;

use crate::maps::Maps;

impl Ways<Frame> for Maps {
    #[inline(always)]
    fn way(&self, packet: &mut Frame, way: Way, _ingress: u32) -> Verdict {
        let bytes = packet.wire_length() as u32;
        let (context, skipped) = (packet.context(), packet.skipped() as u32);
        let bits = match way {
            Way::Announce => way_announce(context, skipped),
            Way::Tagged => way_tagged(context, skipped),
        };
        Verdict::from_bits(bits, bytes)
    }
}

#[inline(always)]
fn run(context: *mut xdp_md, skipped: u32, way: Way) -> u64 {
    // SAFETY: the verifier lets only the context be passed here.
    let mut frame = unsafe { Frame::resume(context, skipped) };
    let ingress = frame.ingress();
    take(&mut frame, &Maps, way, ingress).to_bits()
}

macro_rules! ways {
    ($( $name:ident = $way:ident; )*) => { $(
        #[doc = concat!("[`Way::", stringify!($way), "`].")]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(context: *mut xdp_md, skipped: u32) -> u64 {
            run(context, skipped, Way::$way)
        }
    )* };
}

ways! {
    way_announce = Announce;
    way_tagged = Tagged;
}
