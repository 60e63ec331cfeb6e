//! XDP programs found on an interface.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::net::{
    testing::{TestNet, in_namespace},
    xdp_state::{AttachMode, AttachedProgram, attached_programs, program_name},
};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// `bpf(2)` with `attributes` as the start of `union bpf_attr`, which the kernel takes in any length.
fn bpf(command: libc::c_long, attributes: &mut [u64; 16]) -> io::Result<i64> {
    // SAFETY: the pointer and the size describe `attributes`, and what it points to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(number: i64) -> OwnedFd {
    // SAFETY: the kernel has just handed this descriptor to us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

/// Two 32-bit fields as they lie in memory.
fn pair(first: u32, second: u32) -> u64 {
    u64::from_ne_bytes([first.to_ne_bytes(), second.to_ne_bytes()].concat().try_into().unwrap())
}

/// Loads "r0 = XDP_PASS; exit" under the name "somebody_else".
fn load() -> OwnedFd {
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let licence = c"GPL";
    let mut attributes = [0; 16];
    attributes[0] = pair(PROG_TYPE_XDP, instructions.len() as u32);
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"somebody_else");
    attributes[6] = u64::from_ne_bytes(name[..8].try_into().unwrap());
    attributes[7] = u64::from_ne_bytes(name[8..].try_into().unwrap());
    descriptor(bpf(BPF_PROG_LOAD, &mut attributes).expect("load a program"))
}

fn id_of(program: &OwnedFd) -> u32 {
    let mut info = [0u32; 4];
    let mut attributes = [0; 16];
    attributes[0] = pair(program.as_raw_fd() as u32, size_of_val(&info) as u32);
    attributes[1] = info.as_mut_ptr() as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).expect("describe a program");
    info[1]
}

/// Attaches until the returned descriptor is closed.
fn attach(program: &OwnedFd, ifindex: u32, flags: u32) -> OwnedFd {
    let mut attributes = [0; 16];
    attributes[0] = pair(program.as_raw_fd() as u32, ifindex);
    attributes[1] = pair(ATTACH_TYPE_XDP, flags);
    descriptor(bpf(BPF_LINK_CREATE, &mut attributes).expect("attach a program"))
}

#[test]
fn root_programs_are_found_with_mode_id_and_name() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let index = net.ours.link("lb0").await.index;
        let attached = async || attached_programs(&net.ours.netlink, index).await.unwrap();
        assert_eq!(attached().await, []);
        let program = load();
        let id = id_of(&program);
        for (flags, mode, word) in
            [(FLAG_NATIVE, AttachMode::Native, "native"), (FLAG_GENERIC, AttachMode::Generic, "generic")]
        {
            let link = attach(&program, index, flags);
            assert_eq!(attached().await, [AttachedProgram { mode, id }]);
            let words = attached().await[0].describe();
            assert_eq!(words, format!("{word} XDP program {id} (\"somebody_else\")"));
            drop(link);
            assert_eq!(attached().await, []);
        }
        assert_eq!(program_name(id).unwrap().as_deref(), Some("somebody_else"));
        assert_eq!(program_name(u32::MAX).unwrap(), None);
    });
}

#[test]
fn root_a_missing_interface_is_an_error() {
    in_namespace(|| async {
        let net = TestNet::new();
        let error = attached_programs(&net.ours.netlink, 4242).await.unwrap_err().to_string();
        assert_eq!(error, "the kernel refused to describe interface 4242: No such device (os error 19)");
    });
}
