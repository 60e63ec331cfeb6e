//! What the programs cost the verifier, and how much of the stack they use, against `tests/budgets.toml`.
//!
//! Both numbers are the same on every run of one kernel, so they may fail a build, as times may not. A compiler or a
//! kernel of another version moves the first a little, hence the margins.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use aya::{EbpfLoader, programs::Xdp};
use lb_userspace::dataplane::{AGENT_OBJECT, BALANCER_OBJECT};
use serde::{Deserialize, Serialize};

/// Set to `write`, the file is written anew for the kernel that runs.
const WRITE: &str = "LB_BUDGETS";
/// The kernel refuses more (include/linux/filter.h, `MAX_BPF_STACK`).
const MOST_STACK: u32 = 512;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    /// Percent that either number may exceed its budget by, per kernel; `other` is for kernels without budgets of their own,
    /// which are measured by those of the newest.
    margin: BTreeMap<String, u32>,
    /// Bytes of the stack along the deepest chain of calls, per program.
    stack: BTreeMap<String, u32>,
    /// Instructions that the verifier looked at, per kernel and program.
    instructions: BTreeMap<String, BTreeMap<String, u32>>,
}

fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.toml"))
}

/// Major and minor number of the kernel that runs.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel has a release");
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}

/// What was found of each program: instructions and stack.
fn measured() -> BTreeMap<String, (u32, u32)> {
    let mut found = BTreeMap::new();
    for object in [BALANCER_OBJECT, AGENT_OBJECT] {
        let mut ebpf = EbpfLoader::new().load(object).expect("an object that loads");
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into().expect("an XDP program");
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
            let info = program.info().expect("information about a loaded program");
            let count = info.verified_instruction_count().expect("a count (Linux 5.16)");
            found.insert(name.to_owned(), (count, stack(&dump(info.id()))));
        }
    }
    found
}

/// The program as the verifier left it.
fn dump(id: u32) -> String {
    let output = Command::new("bpftool")
        .args(["prog", "dump", "xlated", "id", &id.to_string()])
        .output()
        .expect("bpftool, which `cargo xtask setup` installs");
    assert!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// One function of a dump: its own bytes of the stack, and whom it calls, by the instruction that they begin at.
#[derive(Debug, Default)]
struct Function {
    bytes: u32,
    calls: Vec<usize>,
}

/// Bytes of the stack along the deepest chain of calls, each frame rounded up as the oldest kernels do that we load on
/// (kernel/bpf/verifier.c, `check_max_stack_depth`: to 32; newer ones round to 16 where programs are compiled).
fn stack(dump: &str) -> u32 {
    const FRAME: u32 = 32;
    let mut functions: BTreeMap<usize, Function> = BTreeMap::new();
    let mut at_start = true;
    let mut current = 0;
    for line in dump.lines() {
        let numbered =
            line.trim_start().split_once(": (").and_then(|(n, rest)| Some((n.parse::<usize>().ok()?, rest)));
        let Some((number, text)) = numbered else {
            // A line of source begins with `;`; what else has no number is the head of a function.
            at_start |= !line.starts_with(';') && line.ends_with(':');
            continue;
        };
        if std::mem::take(&mut at_start) {
            current = number;
        }
        let function = functions.entry(current).or_default();
        function.bytes = function.bytes.max(depth(text));
        function.calls.extend(target(number, text));
    }
    let frame = |function: &Function| function.bytes.max(1).next_multiple_of(FRAME);
    // No recursion in BPF: the chain ends.
    fn deepest(functions: &BTreeMap<usize, Function>, at: usize, frame: &dyn Fn(&Function) -> u32) -> u32 {
        let Some(function) = functions.get(&at) else { return 0 };
        let below = function.calls.iter().map(|to| deepest(functions, *to, frame)).max().unwrap_or(0);
        frame(function) + below
    }
    deepest(&functions, 0, &frame)
}

/// How far below the frame pointer an instruction reaches.
fn depth(text: &str) -> u32 {
    let after = |mark: &str| {
        let rest = text.split(mark).nth(1)?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok()
    };
    // A slot by the pointer itself, or the address of a slot: `r2 = r10` is followed by `r2 += -8`.
    let added = if text.starts_with("07) r") { after(" += -") } else { None };
    after("(r10 -").or(added.filter(|bytes| *bytes <= MOST_STACK)).unwrap_or(0)
}

/// The instruction that a call of a function of the same program goes to.
fn target(number: usize, text: &str) -> Option<usize> {
    let distance = text.strip_prefix("85) call pc")?.split('#').next()?.parse::<isize>().ok()?;
    number.checked_add_signed(distance + 1)
}

#[test]
fn programs_keep_their_budgets() {
    if let Err(error) = lb_tests::cases::kernel::permitted() {
        panic!("{error:#}");
    }
    let (kernel, found) = (kernel(), measured());
    let mut budgets: Budgets =
        toml::from_str(&fs::read_to_string(path()).expect("the file")).expect("budgets");
    if env::var(WRITE).is_ok_and(|word| word == "write") {
        let counts = found.iter().map(|(name, (count, _))| (name.clone(), *count)).collect();
        budgets.instructions.insert(kernel, counts);
        budgets.stack = found.iter().map(|(name, (_, stack))| (name.clone(), *stack)).collect();
        let text = "# Made by `LB_BUDGETS=write cargo xtask test --suite budgets` on each kernel; docs/testing.md.\n";
        let body = toml::to_string(&budgets).expect("budgets as text");
        fs::write(path(), format!("{text}{body}")).expect("the file");
        return;
    }
    let complaints = compare(&budgets, &kernel, &found);
    assert!(
        complaints.is_empty(),
        "\n  {}\n  If it is worth it: {WRITE}=write cargo xtask test --suite budgets",
        complaints.join("\n  ")
    );
}

fn compare(budgets: &Budgets, kernel: &str, found: &BTreeMap<String, (u32, u32)>) -> Vec<String> {
    let version = |name: &&String| name.split('.').filter_map(|n| n.parse::<u32>().ok()).collect::<Vec<_>>();
    let newest = budgets.instructions.keys().max_by_key(version).cloned().unwrap_or_default();
    let of = if budgets.instructions.contains_key(kernel) { kernel } else { newest.as_str() };
    let margin = budgets.margin.get(if of == kernel { kernel } else { "other" }).copied().unwrap_or(0);
    let counts = &budgets.instructions[of];
    let mut complaints = Vec::new();
    for (name, (count, stack)) in found {
        let (Some(budget), Some(stack_budget)) = (counts.get(name), budgets.stack.get(name)) else {
            complaints.push(format!(
                "{name} has no budget in tests/budgets.toml ({count} instructions, {stack} bytes)"
            ));
            continue;
        };
        let most = budget + budget * margin / 100;
        if *count > most {
            complaints.push(format!(
                "{name}: the verifier looked at {count} instructions, the budget is {budget} and {margin} % ({of})"
            ));
        }
        if *stack > stack_budget + stack_budget * margin / 100 {
            complaints
                .push(format!("{name}: {stack} bytes of stack, the budget is {stack_budget} and {margin} %"));
        }
        if *stack > MOST_STACK {
            complaints.push(format!("{name}: {stack} bytes of stack, and the kernel allows {MOST_STACK}"));
        }
    }
    let gone = counts.keys().filter(|name| !found.contains_key(*name));
    complaints.extend(gone.map(|name| format!("{name} has a budget and does not exist")));
    complaints
}

#[test]
fn what_exceeds_a_budget_is_named() {
    let budgets: Budgets = toml::from_str(
        "[margin]\n\"6.18\" = 10\nother = 50\n[stack]\na = 64\n[instructions.\"6.18\"]\na = 100\n\
         [instructions.\"6.1\"]\na = 80\n",
    )
    .expect("budgets");
    let found = |count, stack| BTreeMap::from([("a".to_owned(), (count, stack))]);
    assert_eq!(compare(&budgets, "6.18", &found(110, 64)), Vec::<String>::new());
    assert_eq!(compare(&budgets, "6.18", &found(111, 71)).len(), 2);
    assert_eq!(compare(&budgets, "6.12", &found(150, 64)), Vec::<String>::new(), "the newest's, and half");
    assert_eq!(compare(&budgets, "6.1", &found(81, 64)).len(), 1, "its own, without a margin");
    let other = BTreeMap::from([("b".to_owned(), (1, 1))]);
    assert_eq!(compare(&budgets, "6.18", &other).len(), 2, "one without a budget, one that is gone");
}

#[test]
fn the_deepest_chain_of_calls_counts() {
    let dump = "u32 balancer(struct xdp_md * ctx):\n; source:\n   0: (7b) *(u64 *)(r10 -16) = r1\n   1: (bf) r2 = r10\n   \
                2: (07) r2 += -40\n   3: (85) call pc+1#bpf_prog_0_f\n   4: (95) exit\nu32 f():\n   \
                5: (63) *(u32 *)(r10 -8) = r1\n   6: (85) call bpf_redirect#23\n   7: (95) exit\n";
    assert_eq!(stack(dump), 64 + 32);
}
