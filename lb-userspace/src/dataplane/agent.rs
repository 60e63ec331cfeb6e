//! The agent's program and maps: loads or adopts, fills, reads.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::abi::{AgentSettings, Peer, Reason, maps};

use super::{
    AGENT_OBJECT, Attachment, DataplaneError, Pins, attach, counters,
    load::{check_kernel, program},
    spec::{self, HASH, LPM_TRIE, Spec},
};
use crate::config::XdpMode;

/// Every pinned map of the agent. A key of a trie is the length of the prefix, then the address.
const SPECS: [Spec; 6] = [
    Spec::keyed(maps::SOURCES4, LPM_TRIE, 4 + 4, 4),
    Spec::keyed(maps::SOURCES6, LPM_TRIE, 4 + 16, 4),
    Spec::keyed(maps::AGENT_VIPS, HASH, 16, 4),
    Spec::keyed(maps::PEERS, HASH, 16, size_of::<Peer>()),
    Spec::array(maps::AGENT_SETTINGS, size_of::<AgentSettings>()),
    Spec::per_cpu(maps::REASONS, 8),
];
/// VIPs that fit unless more are wanted when the map is made; a quarter is room to grow.
const VIPS: usize = 4096;

/// Length and first address, in the order of the wire, of each prefix of a trie.
type Prefixes<const N: usize> = BTreeSet<(u8, [u8; N])>;

/// The agent's program, loaded, and its maps.
pub struct AgentMaps {
    ebpf: Ebpf,
    /// Whether the maps were there before.
    pub adopted: bool,
}

impl AgentMaps {
    /// Loads the program; maps that are pinned already are adopted with all they hold.
    ///
    /// # Errors
    /// [`DataplaneError`]; nothing that was pinned before is changed.
    pub fn load(pins: &Pins, vips: usize) -> Result<Self, DataplaneError> {
        check_kernel()?;
        let adopted = spec::adopt(pins, &SPECS)?;
        let mut loader = EbpfLoader::new();
        for spec in &SPECS {
            loader.map_pin_path(spec.name, pins.map(spec.name));
        }
        match adopted.as_ref().map(|elements| elements[maps::AGENT_VIPS]) {
            Some(room) if vips > room as usize => {
                return Err(DataplaneError::Full { vips, room, detach: pins.detach_command() });
            }
            Some(room) => loader.map_max_entries(maps::AGENT_VIPS, room),
            None => {
                let room = (vips + vips / 4).max(VIPS).next_power_of_two();
                loader.map_max_entries(maps::AGENT_VIPS, u32::try_from(room).unwrap_or(u32::MAX))
            }
        };
        let mut ebpf = loader.load(AGENT_OBJECT).map_err(DataplaneError::from_load)?;
        program(&mut ebpf, "agent")?.load().map_err(DataplaneError::from_program)?;
        Ok(Self { ebpf, adopted: adopted.is_some() })
    }

    /// Attaches to `interface`, or replaces the program of the pinned link there: see [`attach`].
    ///
    /// # Errors
    /// As [`attach`].
    pub fn attach(
        &mut self,
        pins: &Pins,
        interface: &str,
        mode: XdpMode,
        current: Option<&'static str>,
    ) -> Result<Attachment, DataplaneError> {
        attach(program(&mut self.ebpf, "agent")?, pins, interface, mode, current)
    }

    /// Makes the maps hold exactly these; says whether anything changed. Everything is added before anything is removed,
    /// so that what is in both is never missing.
    ///
    /// # Errors
    /// [`DataplaneError::Map`]; what was added until then stays.
    pub fn fill(
        &mut self,
        vips: &BTreeSet<IpAddr>,
        sources: &BTreeSet<IpNet>,
        gue_port: u16,
    ) -> Result<bool, DataplaneError> {
        let changed = self.set(AgentSettings { gue_port, ..AgentSettings::default() })?;
        let wanted_vips: BTreeSet<_> = vips.iter().copied().map(vip_key).collect();
        let (wanted4, wanted6) = keys(sources);
        let stale_vips = self.update_vips(&wanted_vips, Step::Add)?;
        let stale4 = self.update_sources::<4>(maps::SOURCES4, &wanted4, Step::Add)?;
        let stale6 = self.update_sources::<16>(maps::SOURCES6, &wanted6, Step::Add)?;
        let removed_vips = self.update_vips(&wanted_vips, Step::Remove)?;
        let removed4 = self.update_sources::<4>(maps::SOURCES4, &wanted4, Step::Remove)?;
        let removed6 = self.update_sources::<16>(maps::SOURCES6, &wanted6, Step::Remove)?;
        Ok(changed | stale_vips | stale4 | stale6 | removed_vips | removed4 | removed6)
    }

    /// Replaces the settings; says whether they changed.
    fn set(&mut self, settings: AgentSettings) -> Result<bool, DataplaneError> {
        const NAME: &str = maps::AGENT_SETTINGS;
        let map = self.ebpf.map_mut(NAME).ok_or(DataplaneError::Object { what: NAME })?;
        let mut map: Array<&mut MapData, AgentSettings> = Array::try_from(map).map_err(error(NAME))?;
        if map.get(&0, 0).map_err(error(NAME))? == settings {
            return Ok(false);
        }
        map.set(0, settings, 0).map_err(error(NAME))?;
        Ok(true)
    }

    /// Makes the map of peers hold exactly these; a peer whose way is being looked for keeps the one that is there.
    ///
    /// # Errors
    /// [`DataplaneError::Map`]; what was changed until then stays.
    pub fn set_peers(&mut self, peers: &BTreeMap<IpAddr, Option<Way>>) -> Result<(), DataplaneError> {
        const NAME: &str = maps::PEERS;
        let map = self.ebpf.map_mut(NAME).ok_or(DataplaneError::Object { what: NAME })?;
        let mut map: HashMap<&mut MapData, [u8; 16], Peer> = HashMap::try_from(map).map_err(error(NAME))?;
        let found: BTreeMap<[u8; 16], Peer> = map.iter().collect::<Result<_, _>>().map_err(error(NAME))?;
        let record = |(address, way): (&IpAddr, &Option<Way>)| {
            let key = vip_key(*address);
            let kept = || found.get(&key).copied().unwrap_or_else(|| Way::UNKNOWN.record());
            (key, way.map_or_else(kept, |way| way.record()))
        };
        let wanted: BTreeMap<[u8; 16], Peer> = peers.iter().map(record).collect();
        for key in found.keys().filter(|key| !wanted.contains_key(*key)) {
            map.remove(key).map_err(error(NAME))?;
        }
        for (key, way) in wanted.iter().filter(|(key, way)| found.get(*key) != Some(way)) {
            map.insert(key, way, 0).map_err(error(NAME))?;
        }
        Ok(())
    }

    fn update_vips(&mut self, wanted: &BTreeSet<[u8; 16]>, step: Step) -> Result<bool, DataplaneError> {
        const NAME: &str = maps::AGENT_VIPS;
        let map = self.ebpf.map_mut(NAME).ok_or(DataplaneError::Object { what: NAME })?;
        let mut map: HashMap<&mut MapData, [u8; 16], u32> = HashMap::try_from(map).map_err(error(NAME))?;
        let found: BTreeSet<[u8; 16]> = map.keys().collect::<Result<_, _>>().map_err(error(NAME))?;
        let changes: Vec<_> = step.of(&found, wanted).copied().collect();
        for key in &changes {
            match step {
                Step::Add => map.insert(key, 1, 0),
                Step::Remove => map.remove(key),
            }
            .map_err(error(NAME))?;
        }
        Ok(!changes.is_empty())
    }

    fn update_sources<const N: usize>(
        &mut self,
        name: &'static str,
        wanted: &Prefixes<N>,
        step: Step,
    ) -> Result<bool, DataplaneError>
    where
        [u8; N]: Pod,
    {
        let map = self.ebpf.map_mut(name).ok_or(DataplaneError::Object { what: name })?;
        let mut trie: LpmTrie<&mut MapData, [u8; N], u32> = LpmTrie::try_from(map).map_err(error(name))?;
        let found = prefixes(&trie).map_err(error(name))?;
        let changes: Vec<_> = step.of(&found, wanted).copied().collect();
        for (bits, data) in &changes {
            let key = Key::new(u32::from(*bits), *data);
            match step {
                Step::Add => trie.insert(&key, 1, 0),
                Step::Remove => trie.remove(&key),
            }
            .map_err(error(name))?;
        }
        Ok(!changes.is_empty())
    }
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Egress interface; 0: not known.
    pub ifindex: u32,
    /// MAC address of the neighbour.
    pub dmac: [u8; 6],
    /// MAC address of the egress interface.
    pub smac: [u8; 6],
    /// Largest IP packet on this way, in bytes.
    pub mtu: u32,
}

impl Way {
    /// A peer whose way is not known: it may hand on, and nothing is handed to it.
    pub const UNKNOWN: Self = Self { ifindex: 0, dmac: [0; 6], smac: [0; 6], mtu: 0 };

    fn record(&self) -> Peer {
        Peer { macs: super::records::macs(self.dmac, self.smac), ifindex: self.ifindex, mtu: self.mtu }
    }
}

/// One half of an update.
#[derive(Clone, Copy)]
enum Step {
    Add,
    Remove,
}

impl Step {
    /// What this step does to `found` on its way to `wanted`.
    fn of<'s, T: Ord>(self, found: &'s BTreeSet<T>, wanted: &'s BTreeSet<T>) -> impl Iterator<Item = &'s T> {
        match self {
            Self::Add => wanted.difference(found),
            Self::Remove => found.difference(wanted),
        }
    }
}

/// What the pinned maps of an agent hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// Destinations of inner packets.
    pub vips: BTreeSet<IpAddr>,
    /// Destination port of GUE.
    pub gue_port: u16,
    /// Other backends, and whether the way to each is known.
    pub peers: BTreeMap<IpAddr, bool>,
    /// Outer sources that are believed.
    pub sources: BTreeSet<IpNet>,
    /// Packets by Reason since the maps were made, in the order of [`Reason::ALL`].
    pub reasons: Vec<(Reason, u64)>,
}

impl AgentView {
    /// Reads the pinned maps; `None` when there are none. Needs no agent to run.
    ///
    /// # Errors
    /// [`DataplaneError`] when a map is missing, cannot be read or is not of this version.
    pub fn read(pins: &Pins) -> Result<Option<Self>, DataplaneError> {
        let there = SPECS.iter().filter(|s| pins.map(s.name).exists()).count();
        if there == 0 {
            return Ok(None);
        }
        if there < SPECS.len() {
            return Err(DataplaneError::Incomplete {
                name: pins.name().into(),
                found: there,
                expected: SPECS.len(),
                detach: pins.detach_command(),
            });
        }
        for spec in &SPECS {
            spec.elements(pins)?;
        }
        const VIPS: &str = maps::AGENT_VIPS;
        let map: HashMap<MapData, [u8; 16], u32> = pinned(pins, VIPS)?.try_into().map_err(error(VIPS))?;
        let vips = map.keys().map(|k| k.map(address)).collect::<Result<_, _>>().map_err(error(VIPS))?;
        let sources4 = pinned_prefixes::<4>(pins, maps::SOURCES4)?;
        let sources6 = pinned_prefixes::<16>(pins, maps::SOURCES6)?;
        let sources = sources4
            .into_iter()
            .map(|(bits, data)| net(bits, Ipv4Addr::from(data).into()))
            .chain(sources6.into_iter().map(|(bits, data)| net(bits, Ipv6Addr::from(data).into())))
            .collect();
        const SETTINGS: &str = maps::AGENT_SETTINGS;
        let settings: Array<MapData, AgentSettings> =
            pinned(pins, SETTINGS)?.try_into().map_err(error(SETTINGS))?;
        let gue_port = settings.get(&0, 0).map_err(error(SETTINGS))?.gue_port;
        const PEERS: &str = maps::PEERS;
        let map: HashMap<MapData, [u8; 16], Peer> = pinned(pins, PEERS)?.try_into().map_err(error(PEERS))?;
        let peer = |(key, way): ([u8; 16], Peer)| (address(key), way.ifindex != 0);
        let peers = map.iter().map(|item| item.map(peer)).collect::<Result<_, _>>().map_err(error(PEERS))?;
        let reasons: PerCpuArray<MapData, u64> =
            pinned(pins, maps::REASONS)?.try_into().map_err(error(maps::REASONS))?;
        Ok(Some(Self { vips, gue_port, peers, sources, reasons: counters::sums(&reasons)? }))
    }
}

fn pinned(pins: &Pins, name: &'static str) -> Result<Map, DataplaneError> {
    MapData::from_pin(pins.map(name)).and_then(Map::from_map_data).map_err(error(name))
}

fn pinned_prefixes<const N: usize>(pins: &Pins, name: &'static str) -> Result<Prefixes<N>, DataplaneError>
where
    [u8; N]: Pod,
{
    let trie: LpmTrie<MapData, [u8; N], u32> = pinned(pins, name)?.try_into().map_err(error(name))?;
    prefixes(&trie).map_err(error(name))
}

fn prefixes<T: Borrow<MapData>, const N: usize>(
    trie: &LpmTrie<T, [u8; N], u32>,
) -> Result<Prefixes<N>, MapError>
where
    [u8; N]: Pod,
{
    // The kernel takes no prefix longer than the data, which has at most 128 bits.
    trie.keys().map(|key| key.map(|key| (key.prefix_len() as u8, key.data()))).collect()
}

fn error(name: &'static str) -> impl Fn(MapError) -> DataplaneError {
    move |e| DataplaneError::Map { name, error: e.to_string() }
}

/// A VIP as `AGENT_VIPS` has it, in the order of the wire: IPv4 as `::ffff:a.b.c.d`.
fn vip_key(vip: IpAddr) -> [u8; 16] {
    match vip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address(key: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(key).to_canonical()
}

/// Length and first address of each prefix, by family.
fn keys(sources: &BTreeSet<IpNet>) -> (Prefixes<4>, Prefixes<16>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        match source.trunc() {
            IpNet::V4(net) => v4.insert((net.prefix_len(), net.network().octets())),
            IpNet::V6(net) => v6.insert((net.prefix_len(), net.network().octets())),
        };
    }
    (v4, v6)
}

/// A prefix of a trie; the kernel keeps no lengths beyond the family's.
fn net(bits: u8, address: IpAddr) -> IpNet {
    IpNet::new(address, bits).unwrap_or_else(|_| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_program_looks_up() {
        let vip: IpAddr = "192.0.2.10".parse().unwrap();
        let words = lb_common::datapath::mapped(u32::from_ne_bytes([192, 0, 2, 10]));
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(vip_key(vip).as_slice(), bytes);
        assert_eq!(address(vip_key(vip)), vip);
        let vip: IpAddr = "2001:db8::10".parse().unwrap();
        assert_eq!(address(vip_key(vip)), vip);
    }

    #[test]
    fn prefixes_are_split_by_family_and_start_at_their_first_address() {
        let sources = ["198.51.100.9/28", "2001:db8:1::1/128"].map(|s| s.parse().unwrap()).into();
        let (v4, v6) = keys(&sources);
        assert_eq!(v4, [(28, [198, 51, 100, 0])].into());
        assert_eq!(
            v6.iter().map(|(bits, a)| net(*bits, Ipv6Addr::from(*a).into()).to_string()).collect::<Vec<_>>(),
            ["2001:db8:1::1/128"]
        );
    }

    #[test]
    fn an_update_adds_what_is_missing_and_removes_what_is_not_wanted() {
        let (found, wanted) = ([1, 2].into(), [2, 3].into());
        assert_eq!(Step::Add.of(&found, &wanted).collect::<Vec<_>>(), [&3]);
        assert_eq!(Step::Remove.of(&found, &wanted).collect::<Vec<_>>(), [&1]);
    }
}
