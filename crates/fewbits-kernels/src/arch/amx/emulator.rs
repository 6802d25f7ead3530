//! AMX for tests on CPUs without it: a handler of the signal that an unknown instruction raises.
//!
//! It knows the instructions used here, as Intel's manual defines them, and refuses what a CPU
//! refuses: tiles that are not configured, or whose sizes do not fit together.

use std::cell::UnsafeCell;
use std::sync::Once;

use libc::{c_int, c_void, greg_t, siginfo_t, ucontext_t};

const TILES: usize = 8;
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// The registers of `ucontext_t` in the order in which instructions number them.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Makes AMX instructions work in this process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
        // SAFETY: zero is a valid sigaction, and the handler has the signature of SA_SIGINFO. It
        // neither allocates nor locks.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut())
        };
        assert_eq!(failed, 0, "no handler");
    });
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the context of this thread; instructions are readable where they
    // are executed; and signals of the emulator do not nest, so the state has one user.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        let done = Instruction::decode(at, registers)
            .filter(|instruction| STATE.with(|state| (*state.get()).execute(instruction)));
        match done {
            Some(instruction) => registers[libc::REG_RIP as usize] += instruction.len as greg_t,
            // Executed again, the instruction ends the process.
            None => _ = libc::signal(libc::SIGILL, libc::SIG_DFL),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Operation {
    LoadConfig,
    Release,
    Zero,
    Load,
    Store,
    /// `tdpbusd`.
    Multiply,
}

struct Instruction {
    operation: Operation,
    len: usize,
    /// The fields reg and r/m of ModRM, and vvvv of the prefix.
    reg: usize,
    rm: usize,
    vvvv: usize,
    /// Base and displacement of the operand in memory.
    address: usize,
    /// Its index, scaled.
    stride: usize,
}

impl Instruction {
    /// Decodes an instruction with a three-byte VEX prefix of the map 0F38.
    ///
    /// # Safety
    /// There must be an instruction at `at`.
    unsafe fn decode(at: *const u8, registers: &[greg_t]) -> Option<Instruction> {
        // SAFETY: never further than the instruction is long, which what was read so far tells.
        let byte = |i: usize| unsafe { at.add(i).read() };
        let register = |number: usize| registers[REGISTERS[number] as usize] as usize;
        if byte(0) != 0xC4 || byte(1) & 0x1F != 2 {
            return None;
        }
        // These bits are stored inverted; bit 3 of a register's number.
        let [r, x, b] = [0x80, 0x40, 0x20].map(|bit| usize::from(byte(1) & bit == 0) << 3);
        let (w, vvvv, l, pp) =
            (byte(2) >> 7, usize::from(!byte(2) >> 3 & 0xF), byte(2) >> 2 & 1, byte(2) & 3);
        if w != 0 || l != 0 {
            return None;
        }
        let modrm = usize::from(byte(4));
        let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        const NONE: u8 = 0;
        const P66: u8 = 1;
        const PF3: u8 = 2;
        const PF2: u8 = 3;
        let operation = match (byte(3), pp, mode == 3) {
            (0x49, NONE, false) if reg == 0 => Operation::LoadConfig,
            (0x49, NONE, true) if modrm == 0xC0 => Operation::Release,
            (0x49, PF2, true) if rm == 0 => Operation::Zero,
            (0x4B, PF2, false) if rm == 4 => Operation::Load,
            (0x4B, PF3, false) if rm == 4 => Operation::Store,
            (0x5E, P66, true) => Operation::Multiply,
            _ => return None,
        };
        // Tiles 8 to 15 do not exist, and only products have a third operand.
        let third = operation == Operation::Multiply;
        if r != 0 || (mode == 3 && b != 0) || (third && vvvv >= TILES) || (!third && vvvv != 0) {
            return None;
        }
        let mut instruction =
            Instruction { operation, len: 5, reg, rm, vvvv, address: 0, stride: 0 };
        if mode == 3 {
            return Some(instruction);
        }
        let mut base = Some(rm + b);
        if rm == 4 {
            let sib = usize::from(byte(5));
            instruction.len += 1;
            let index = (sib >> 3 & 7) + x;
            if index != 4 {
                instruction.stride = register(index) << (sib >> 6);
            }
            base = (sib & 7 != 5 || mode != 0).then_some((sib & 7) + b);
        }
        let relative = rm == 5 && mode == 0;
        let displacement = if mode == 1 {
            instruction.len += 1;
            isize::from(byte(instruction.len - 1) as i8)
        } else if mode == 2 || relative || base.is_none() {
            let bytes = std::array::from_fn(|i| byte(instruction.len + i));
            instruction.len += 4;
            i32::from_le_bytes(bytes) as isize
        } else {
            0
        };
        let base = match base {
            _ if relative => at as usize + instruction.len,
            Some(base) => register(base),
            None => 0,
        };
        instruction.address = base.wrapping_add_signed(displacement);
        Some(instruction)
    }
}

/// What AMX adds to the state of a thread.
struct State {
    /// Rows and bytes of a row of each tile; without a configuration all are 0.
    sizes: [(usize, usize); TILES],
    tiles: [[[u8; ROW_BYTES]; ROWS]; TILES],
}

thread_local! {
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(State::INITIAL) };
}

impl State {
    const INITIAL: State = State { sizes: [(0, 0); TILES], tiles: [[[0; ROW_BYTES]; ROWS]; TILES] };

    /// Executes an instruction, unless a CPU would refuse it.
    ///
    /// # Safety
    /// The memory that the instruction names must be readable, or writable.
    unsafe fn execute(&mut self, instruction: &Instruction) -> bool {
        let Instruction { operation, reg, rm, vvvv, address, stride, .. } = *instruction;
        let (rows, row_bytes) = self.sizes[reg];
        if !matches!(operation, Operation::LoadConfig | Operation::Release) && rows == 0 {
            return false;
        }
        let row_at = |row: usize| address.wrapping_add(row.wrapping_mul(stride)) as *mut u8;
        match operation {
            Operation::LoadConfig => {
                // SAFETY: this function's contract.
                return self.configure(unsafe { &*(address as *const [u8; 64]) });
            }
            Operation::Release => *self = State::INITIAL,
            Operation::Zero => self.tiles[reg] = [[0; ROW_BYTES]; ROWS],
            Operation::Load => {
                self.tiles[reg] = [[0; ROW_BYTES]; ROWS];
                for (row, to) in self.tiles[reg][..rows].iter_mut().enumerate() {
                    // SAFETY: this function's contract.
                    unsafe { row_at(row).copy_to(to.as_mut_ptr(), row_bytes) };
                }
            }
            Operation::Store => {
                for (row, from) in self.tiles[reg][..rows].iter().enumerate() {
                    // SAFETY: this function's contract.
                    unsafe { row_at(row).copy_from(from.as_ptr(), row_bytes) };
                }
            }
            Operation::Multiply => {
                let (unsigned, signed) = (self.sizes[rm], self.sizes[vvvv]);
                let fits = unsigned.0 == rows
                    && unsigned.1 == 4 * signed.0
                    && signed.1 == row_bytes
                    && row_bytes.is_multiple_of(4);
                if reg == rm || reg == vvvv || rm == vvvv || !fits {
                    return false;
                }
                self.multiply(reg, rm, vvvv);
            }
        }
        true
    }

    fn configure(&mut self, config: &[u8; 64]) -> bool {
        *self = State::INITIAL;
        let (palette, start_row, reserved) = (config[0], config[1], &config[2..16]);
        let (row_bytes, rows) = config[16..].split_at(32);
        let sizes = |tile: usize| {
            let row_bytes = u16::from_le_bytes([row_bytes[2 * tile], row_bytes[2 * tile + 1]]);
            (usize::from(rows[tile]), usize::from(row_bytes))
        };
        self.sizes = std::array::from_fn(sizes);
        let legal = |(rows, row_bytes)| {
            rows <= ROWS && row_bytes <= ROW_BYTES && (rows == 0) == (row_bytes == 0)
        };
        palette == 1
            && start_row == 0
            && reserved.iter().all(|&byte| byte == 0)
            && self.sizes.into_iter().all(legal)
            && (TILES..16).all(|tile| sizes(tile) == (0, 0))
    }

    fn multiply(&mut self, sums: usize, unsigned: usize, signed: usize) {
        let (rows, row_bytes) = self.sizes[sums];
        for row in 0..rows {
            for step in 0..self.sizes[signed].0 {
                for column in 0..row_bytes / 4 {
                    let a = &self.tiles[unsigned][row][4 * step..][..4];
                    let b = &self.tiles[signed][step][4 * column..][..4];
                    let products: i32 =
                        a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b as i8)).sum();
                    let sum = &mut self.tiles[sums][row][4 * column..][..4];
                    let old = i32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
                    sum.copy_from_slice(&old.wrapping_add(products).to_le_bytes());
                }
            }
        }
    }
}
