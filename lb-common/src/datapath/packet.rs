//! A packet as the datapath sees it.

/// The packet ended before the header did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// An Ethernet frame.
///
/// The frame may start later than the bytes do: [`Packet::skip`] leaves bytes before it out of sight, and all offsets
/// and lengths count from there.
///
/// Headers are `&[u8; N]`, never slices of a length known at run time: there is no index left to panic, and the
/// verifier sees a constant bound. Growing and shrinking take `&mut self`, so a reference to a header cannot outlive
/// the move of the packet's start.
pub trait Packet {
    /// Bytes from the Ethernet header to the end of the frame.
    fn length(&self) -> usize;

    /// `N` bytes at `offset`.
    fn at<const N: usize>(&self, offset: usize) -> Result<&[u8; N], Cut>;

    /// `N` bytes at `offset`, to be written.
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Result<&mut [u8; N], Cut>;

    /// Makes room for `N` bytes before the frame; their content is undefined, and what is out of sight stays before
    /// them. Fails without effect when the driver left too little headroom.
    fn grow<const N: usize>(&mut self) -> Result<(), Cut>;

    /// Takes the first `N` bytes away. Fails without effect when the frame is shorter.
    fn shrink<const N: usize>(&mut self) -> Result<(), Cut>;

    /// Takes everything behind the first `length` bytes away, of which the frame has more. A driver that cannot leaves
    /// the frame as it is.
    fn truncate(&mut self, length: usize);

    /// Bytes before the start of the frame that are out of sight.
    fn skipped(&self) -> usize;

    /// Takes the frame to start `bytes` (0, 4 or 8) after the first byte; moves nothing.
    fn skip(&mut self, bytes: usize);

    /// Reads the bounds of the frame anew from here on. Where many ways meet, the compiler would keep the bounds that each
    /// of them read in one 32-bit register, which is no packet pointer to the verifier. Changes nothing.
    fn look_again(&mut self) {}

    /// Bytes on the wire: what is out of sight, and the frame.
    fn wire_length(&self) -> usize {
        self.skipped() + self.length()
    }
}
