use proptest::prelude::*;

use super::*;
use crate::arch::testing::tested_cpus;
use crate::bytes::Window;
use crate::{Buffer, Cpu, Halo, ImageLayout, Level};

/// A product as one would write it down.
fn oracle(weights: &[i8], rows: &[Vec<u8>]) -> Vec<i32> {
    let mut sums = Vec::new();
    for row in rows {
        for column in weights.chunks_exact(row.len()) {
            sums.push(row.iter().zip(column).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum());
        }
    }
    sums
}

fn filled(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::new(bytes.len());
    buffer.u8s_mut().copy_from_slice(bytes);
    buffer
}

fn sums_on(cpu: Cpu, weights: &[i8], rows: &[Vec<u8>], threads: Threads) -> Vec<i32> {
    let (depth, columns) = (rows[0].len(), weights.len() / rows[0].len());
    let packed = PackedWeights::new(cpu, weights, columns, 1, depth);
    let input = filled(&rows.concat());
    let mut sums = vec![0; rows.len() * columns];
    multiply(
        &packed,
        Grid::of_matrix(rows.len()),
        &Input { bytes: input.with_slack(), rows: RowStrides::of_matrix(depth), runs: &[0] },
        Output::Sums { sums: &mut sums, rows: RowStrides::of_matrix(columns) },
        threads,
    );
    sums
}

/// Bytes with many extremes.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(255), Just(128), any::<u8>()]
}

fn product() -> impl Strategy<Value = (Vec<i8>, Vec<Vec<u8>>)> {
    // 8 bits, or 4.
    let shift = prop_oneof![Just(0), Just(4)];
    (1..70usize, 1..90usize, 1..70usize, shift).prop_flat_map(|(rows, columns, depth, shift)| {
        (
            prop::collection::vec(byte().prop_map(move |b| b as i8 >> shift), columns * depth),
            prop::collection::vec(prop::collection::vec(byte(), depth), rows),
        )
    })
}

#[test]
fn weights_of_4_bits_take_half_a_byte() {
    for cpu in tested_cpus() {
        let len_bytes = |largest: i8| {
            let small = (0..64 * 128 - 1).map(|i| (i % 16) as i8 - 8);
            let weights: Vec<i8> = small.chain([largest]).collect();
            PackedWeights::new(cpu, &weights, 64, 1, 128).len_bytes()
        };
        let parts = if cpu.level() >= Level::Avx512Vnni { 2 } else { 1 };
        assert_eq!((len_bytes(7), len_bytes(8)), (64 * 128 / parts, 64 * 128), "{cpu:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_cpu_sums_exactly((weights, rows) in product()) {
        let wanted = oracle(&weights, &rows);
        for cpu in tested_cpus() {
            prop_assert_eq!(&sums_on(cpu, &weights, &rows, Threads::ONE), &wanted, "{:?}", cpu);
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    // The sums are beyond 16 bits by far.
    let rows = vec![vec![255; 512]; 7];
    for weight in [-128, 127] {
        let weights = vec![weight; 512 * 17];
        for cpu in tested_cpus() {
            let sums = sums_on(cpu, &weights, &rows, Threads::ONE);
            assert!(sums.iter().all(|&s| s == 512 * 255 * i32::from(weight)), "{cpu:?}");
        }
    }
}

#[test]
fn threads_share_rows_or_columns() {
    let random = |n: usize| (0..n).map(|i| (i * i * 7 + i / 3) as u8).collect::<Vec<u8>>();
    for (rows, columns) in [(130, 100), (1, 1000)] {
        let weights: Vec<i8> = random(columns * 500).into_iter().map(|b| b as i8).collect();
        let rows: Vec<Vec<u8>> = random(rows * 500).chunks(500).map(<[u8]>::to_vec).collect();
        for cpu in tested_cpus() {
            assert_eq!(
                sums_on(cpu, &weights, &rows, Threads::new(3)),
                sums_on(Cpu::SCALAR, &weights, &rows, Threads::ONE)
            );
        }
    }
}

/// Bytes without a pattern.
fn random(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn sizes_around_those_of_tiles() {
    for rows in [4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48] {
        for depth in [1, 63, 64, 65, 200] {
            for columns in [1, 16, 17, 33, 49, 64, 65, 80] {
                let weights: Vec<i8> =
                    random(columns * depth).into_iter().map(|b| b as i8).collect();
                let rows: Vec<Vec<u8>> =
                    random(rows * depth).chunks(depth).map(<[u8]>::to_vec).collect();
                let wanted = oracle(&weights, &rows);
                for cpu in tested_cpus() {
                    let size = [rows.len(), depth, columns];
                    assert_eq!(
                        sums_on(cpu, &weights, &rows, Threads::ONE),
                        wanted,
                        "{cpu:?}, {size:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn long_dot_products() {
    for (rows, depth, columns) in [(17, 5000, 80), (32, 5000, 16), (41, 70_000, 3)] {
        // Small weights, for sums that are exact in f32.
        let weights: Vec<i8> = random(columns * depth).into_iter().map(|b| b as i8 % 2).collect();
        let rows: Vec<Vec<u8>> = random(rows * depth).chunks(depth).map(<[u8]>::to_vec).collect();
        let wanted = oracle(&weights, &rows);
        for cpu in tested_cpus() {
            assert_eq!(sums_on(cpu, &weights, &rows, Threads::ONE), wanted, "{cpu:?}, {depth}");
        }
    }
}

/// Three by three taps with padding of one pixel.
fn window(stride: usize) -> Window {
    Window { stride: [stride; 2], pads_begin: [1; 2], pads_end: [1; 2], ..Window::of([3; 2]) }
}

/// Tiles of rows that end anywhere in lines of pixels, and images.
#[test]
fn windows_of_images() {
    let halo = Halo { top: 1, left: 1, bottom: 1, right: 1 };
    for (width, stride, channels, filters) in
        [(5, 1, 3, 70), (14, 1, 64, 33), (16, 1, 22, 16), (18, 1, 5, 130), (34, 2, 3, 65)]
    {
        let layout = ImageLayout { images: 3, height: 4, width, channels, halo };
        let grid = Grid { images: 3, height: 3 / stride + 1, width: (width - 1) / stride + 1 };
        let bytes = filled(&random(layout.len_bytes()));
        let weights: Vec<i8> =
            random(filters * 9 * channels).into_iter().map(|b| b as i8).collect();
        let runs: Vec<usize> = (0..3).map(|dy| dy * layout.row_pitch()).collect();
        let sums = |cpu, threads| {
            let mut floats = vec![0.0; grid.len() * filters];
            multiply(
                &PackedWeights::new(cpu, &weights, filters, 3, 3 * channels),
                grid,
                &Input {
                    bytes: bytes.with_slack(),
                    rows: RowStrides::of_windows(&layout, &window(stride)),
                    runs: &runs,
                },
                Output::Floats {
                    floats: &mut floats,
                    rows: RowStrides {
                        start: 0,
                        image: grid.height * grid.width * filters,
                        row: grid.width * filters,
                        pixel: filters,
                    },
                    dequantize: Dequantize {
                        bias: &vec![0; filters],
                        scale: &vec![1.0; filters],
                        offset: None,
                        function: None,
                        add: None,
                    },
                },
                threads,
            );
            floats
        };
        let wanted = sums(Cpu::SCALAR, Threads::ONE);
        for cpu in tested_cpus() {
            for threads in [Threads::ONE, Threads::new(2)] {
                assert_eq!(sums(cpu, threads), wanted, "{cpu:?}, {width}");
            }
        }
    }
}

/// A convolution of padded images with a residual, against plain loops.
#[test]
fn convolution_with_a_residual() {
    let halo = Halo { top: 1, left: 1, bottom: 1, right: 1 };
    let (images, channels, filters, size, stride) = (2, 5, 19, 7, 2);
    let layout = ImageLayout { images, height: size, width: size, channels, halo };
    let out_size = (size + 2 - 3) / stride + 1;
    let out_layout =
        ImageLayout { images, height: out_size, width: out_size, channels: filters, halo };
    let mut input = Buffer::new(layout.len_bytes());
    input.u8s_mut().iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 % 256) as u8);
    layout.fill_halo(input.u8s_mut(), 11);
    let weights: Vec<i8> = (0..filters * 9 * channels).map(|i| (i * 91 % 255) as i8).collect();
    let other: Vec<u8> = (0..out_layout.len_bytes()).map(|i| (i * 13 % 256) as u8).collect();
    let bias: Vec<i32> = (0..filters as i32).map(|i| i * 50 - 300).collect();
    let scale: Vec<f32> = (0..filters).map(|i| 0.001 + i as f32 * 1e-4).collect();
    let to = QuantizeTo { scale: 0.05, zero_point: 100, low: 100, high: 255 };
    let add = AddBytes {
        other: &other,
        rows: RowStrides::of_image(&out_layout),
        other_zero_point: 3,
        other_scale: 0.02,
        to: QuantizeTo { scale: 0.06, zero_point: 7, low: 0, high: 250 },
    };
    let mut wanted = vec![0u8; out_layout.len_bytes()];
    for (image, y, x) in (0..images)
        .flat_map(|i| (0..out_size).flat_map(move |y| (0..out_size).map(move |x| (i, y, x))))
    {
        for f in 0..filters {
            let mut sum = bias[f];
            for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                for c in 0..channels {
                    let at = image * layout.image_pitch()
                        + (y * stride + dy) * layout.row_pitch()
                        + (x * stride + dx) * channels
                        + c;
                    sum += i32::from(input.u8s()[at])
                        * i32::from(weights[((f * 3 + dy) * 3 + dx) * channels + c]);
                }
            }
            let q = ((sum as f32 * scale[f]).round_ties_even() + 100.0).clamp(100.0, 255.0);
            let at = out_layout.offset(image, y, x) + f;
            let sum = (q - 100.0) * 0.05 + (f32::from(other[at]) - 3.0) * 0.02;
            wanted[at] = ((sum / 0.06).round_ties_even() + 7.0).clamp(0.0, 250.0) as u8;
        }
    }
    let runs: Vec<usize> = (0..3).map(|dy| dy * layout.row_pitch()).collect();
    for cpu in tested_cpus() {
        let mut out = vec![0u8; out_layout.len_bytes()];
        multiply(
            &PackedWeights::new(cpu, &weights, filters, 3, 3 * channels),
            Grid { images, height: out_size, width: out_size },
            &Input {
                bytes: input.with_slack(),
                rows: RowStrides::of_windows(&layout, &window(stride)),
                runs: &runs,
            },
            Output::Bytes {
                bytes: &mut out,
                rows: RowStrides::of_image(&out_layout),
                requantize: Requantize { bias: &bias, scale: &scale, to },
                add: Some(add),
            },
            Threads::ONE,
        );
        assert_eq!(out, wanted, "{cpu:?}");
    }
}

/// Numbers so large that sums of them would wrap are no small numbers.
#[test]
fn rows_beyond_all_memory_are_refused() {
    let input = Buffer::new(64);
    let packed = PackedWeights::new(Cpu::SCALAR, &[1; 4], 1, 1, 4);
    let fails = |start: usize, run: usize, pixel: usize| {
        let mut sums = [0; 4];
        let product = std::panic::AssertUnwindSafe(|| {
            let rows = RowStrides { start, ..RowStrides::of_matrix(4) };
            multiply(
                &packed,
                Grid::of_matrix(3),
                &Input { bytes: input.with_slack(), rows, runs: &[run] },
                Output::Sums { sums: &mut sums, rows: RowStrides::of_matrix(pixel) },
                Threads::ONE,
            );
        });
        std::panic::catch_unwind(product).is_err()
    };
    assert!(!fails(0, 0, 1));
    // Rows 0 and 2 of the output would be the same.
    assert!(fails(0, 0, 1 << (usize::BITS - 1)));
    assert!(fails(usize::MAX - 7, 0, 1) && fails(0, usize::MAX - 7, 1));
}
