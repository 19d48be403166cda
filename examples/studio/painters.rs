//! Three procedural painters: a seed makes the picture, the processor does the work.

use std::f64::consts::TAU;

/// Linear colour, each part from 0 to 1.
type Colour = [f64; 3];

/// Who paints.
#[derive(Clone, Copy, Debug)]
pub enum Painter {
    Valley,
    Current,
    Nebula,
}

/// A square of colours, and whether to go on.
pub struct Canvas<'a> {
    size: usize,
    pixels: Vec<Colour>,
    /// Called with the part that is done; returns whether to go on.
    go_on: &'a mut dyn FnMut(f64) -> bool,
}

/// Paints a square of `size` pixels; `None` when stopped.
pub fn paint(
    painter: Painter,
    seed: u64,
    size: usize,
    go_on: &mut dyn FnMut(f64) -> bool,
) -> Option<Vec<u8>> {
    let mut canvas = Canvas { size, pixels: vec![[0.0; 3]; size * size], go_on };
    match painter {
        Painter::Valley => valley(&mut canvas, seed),
        Painter::Current => current(&mut canvas, seed),
        Painter::Nebula => nebula(&mut canvas, seed),
    }?;
    Some(canvas.into_rgb())
}

impl Canvas<'_> {
    /// Paints row by row, each pixel the mean of `samples`² points.
    fn rows(&mut self, samples: usize, colour: impl Fn(f64, f64) -> Colour) -> Option<()> {
        let (size, grid) = (self.size as f64, samples as f64);
        for y in 0..self.size {
            if !(self.go_on)(y as f64 / size) {
                return None;
            }
            for x in 0..self.size {
                let mut sum = [0.0; 3];
                for sample in 0..samples * samples {
                    let dx = ((sample % samples) as f64 + 0.5) / grid;
                    let dy = ((sample / samples) as f64 + 0.5) / grid;
                    let point = colour((x as f64 + dx) / size, (y as f64 + dy) / size);
                    sum = add(sum, point, 1.0);
                }
                self.pixels[y * self.size + x] = sum.map(|part| part / (grid * grid));
            }
        }
        Some(())
    }

    /// Adds light at a point; outside of the canvas it is lost.
    fn shine(&mut self, x: f64, y: f64, light: Colour, strength: f64) {
        let (x, y) = (x * self.size as f64, y * self.size as f64);
        if x >= 0.0 && y >= 0.0 && (x as usize) < self.size && (y as usize) < self.size {
            let pixel = &mut self.pixels[y as usize * self.size + x as usize];
            *pixel = add(*pixel, light, strength);
        }
    }

    fn into_rgb(self) -> Vec<u8> {
        let bytes = self.pixels.into_iter().flatten();
        bytes.map(|part| (part.clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0).round() as u8).collect()
    }
}

/// Mountains behind mountains under a low sun.
fn valley(canvas: &mut Canvas<'_>, seed: u64) -> Option<()> {
    let pick = |n: u64| unit(hash(seed, n, 11));
    let hue = pick(0);
    let zenith = mix([0.02, 0.06, 0.2], rainbow(hue, 0.16), 0.45);
    let horizon = mix([0.95, 0.55, 0.3], rainbow(hue + 0.1 * pick(1), 0.6), 0.4);
    let sun = (0.25 + 0.5 * pick(2), 0.38 + 0.12 * pick(3));
    let near = mix([0.01, 0.02, 0.03], rainbow(hue + 0.5, 0.02), 0.5);
    canvas.rows(2, |x, y| {
        let glow = (-9.0 * ((x - sun.0).powi(2) + (y - sun.1).powi(2)).sqrt()).exp();
        let disc = smooth((0.062 - ((x - sun.0).powi(2) + (y - sun.1).powi(2)).sqrt()) * 400.0);
        let mut colour = mix(zenith, horizon, (y * 1.5).min(1.0).powf(1.4));
        let cloud = smooth((fbm(seed, 2.5 * x, 9.0 * y, 5) - 0.52) * 5.0) * (0.7 - y).max(0.0);
        colour = mix(colour, [1.0, 0.93, 0.85], cloud);
        colour = add(colour, [1.0, 0.72, 0.42], 0.7 * glow);
        colour = mix(colour, [1.0, 0.95, 0.82], disc);
        for layer in 0..6 {
            let depth = f64::from(layer) / 5.0;
            let scale = 2.0 + 1.2 * depth;
            let ridge = fbm(seed ^ (layer as u64 + 1), scale * x + 7.0 * depth, 0.5, 9);
            let height = 0.46 + 0.42 * depth - (0.34 - 0.12 * depth) * (ridge - 0.3);
            if y > height {
                let rock = mix(mix(horizon, zenith, 0.35), near, 0.15 + 0.85 * depth);
                let grain = fbm(seed ^ 99, 24.0 * x, 24.0 * y + 5.0 * depth, 4) - 0.5;
                let mist = (-(y - height) * (16.0 - 8.0 * depth)).exp() * (1.0 - 0.7 * depth);
                colour = mix(
                    add(rock, rock, 0.7 * grain),
                    horizon,
                    0.35 * (1.0 - mist).max(0.0) * (1.0 - depth),
                );
                colour = add(colour, horizon, 0.12 * mist);
            }
        }
        colour
    })
}

/// Threads of light that drift with a current.
fn current(canvas: &mut Canvas<'_>, seed: u64) -> Option<()> {
    const THREADS: u64 = 16_000;
    let hue = unit(hash(seed, 0, 22));
    let ground = rainbow(hue + 0.5, 0.016);
    canvas.pixels.fill(ground);
    let turns = 1.0 + 1.4 * unit(hash(seed, 1, 22));
    let steps = canvas.size * 2 / 3;
    let step = 0.75 / canvas.size as f64;
    for thread in 0..THREADS {
        if thread % 16 == 0 && !(canvas.go_on)(thread as f64 / THREADS as f64) {
            return None;
        }
        let (mut x, mut y) =
            (1.2 * unit(hash(seed, thread, 33)) - 0.1, 1.2 * unit(hash(seed, thread, 44)) - 0.1);
        let tint = fbm(seed ^ 7, 1.6 * x, 1.6 * y, 3);
        let light = rainbow(hue + 0.45 * tint + 0.04 * unit(hash(seed, thread, 55)), 0.5);
        for at in 0..steps {
            let angle = turns * TAU * fbm(seed, 1.8 * x, 1.8 * y, 4);
            x += step * angle.cos();
            y += step * angle.sin();
            let fade = (at as f64 / steps as f64 * std::f64::consts::PI).sin();
            canvas.shine(x, y, light, 0.05 * fade * 640.0 / canvas.size as f64);
        }
    }
    Some(())
}

/// A Julia set whose points remember what they passed by.
fn nebula(canvas: &mut Canvas<'_>, seed: u64) -> Option<()> {
    let pick = |n: u64| unit(hash(seed, n, 66));
    // Along the rim of the great cardioid the sets are the richest.
    let angle = TAU * (0.08 + 0.84 * pick(0));
    let (re, im) = (
        1.012 * (0.5 * angle.cos() - 0.25 * (2.0 * angle).cos()),
        1.012 * (0.5 * angle.sin() - 0.25 * (2.0 * angle).sin()),
    );
    let (hue, turn, zoom) = (pick(1), TAU * pick(2), 2.3 + 0.5 * pick(3));
    canvas.rows(4, |x, y| {
        let (u, v) = ((x - 0.5) * zoom, (y - 0.5) * zoom);
        let (mut a, mut b) = (u * turn.cos() - v * turn.sin(), u * turn.sin() + v * turn.cos());
        let (mut ring, mut cross) = (f64::MAX, f64::MAX);
        let mut escaped = 220.0;
        for n in 0..220 {
            (a, b) = (a * a - b * b + re, 2.0 * a * b + im);
            let far = a * a + b * b;
            // Only the first steps: in the end every path passes everything by.
            if n < 28 {
                ring = ring.min((far.sqrt() - 0.42).abs());
                cross = cross.min(a.abs().min(b.abs()));
            }
            if far > 64.0 {
                escaped = f64::from(n) + 1.0 - (far.ln() / 64f64.ln()).log2();
                break;
            }
        }
        let depth = (escaped / 220.0).clamp(0.0, 1.0).powf(0.35);
        let mut colour = rainbow(hue + 0.6 * depth, 0.02 + 0.45 * depth * (1.0 - depth));
        colour = add(colour, rainbow(hue + 0.15, 0.5), 0.9 * (-11.0 * ring).exp());
        colour = add(colour, rainbow(hue + 0.5, 0.7), 0.45 * (-90.0 * cross).exp());
        // Bright light saturates softly, and the dark is dark.
        colour.map(|part| (1.3 * part / (1.0 + part)).powf(1.7))
    })
}

fn add(a: Colour, b: Colour, strength: f64) -> Colour {
    [a[0] + b[0] * strength, a[1] + b[1] * strength, a[2] + b[2] * strength]
}

fn mix(a: Colour, b: Colour, part: f64) -> Colour {
    let part = part.clamp(0.0, 1.0);
    add(a.map(|x| x * (1.0 - part)), b, part)
}

fn smooth(x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// A colour of the circle, `light` being its mean brightness.
fn rainbow(hue: f64, light: f64) -> Colour {
    [0.0, 0.36, 0.67].map(|shift| light * (1.0 + 0.75 * (TAU * (hue + shift)).cos()))
}

/// Noise in octaves, from 0 to 1.
fn fbm(seed: u64, x: f64, y: f64, octaves: u32) -> f64 {
    let (mut sum, mut weight, mut scale) = (0.0, 0.5, 1.0);
    for octave in 0..octaves {
        sum += weight * noise(seed.wrapping_add(u64::from(octave)), scale * x, scale * y);
        weight *= 0.5;
        scale *= 2.03;
    }
    sum / (1.0 - 0.5f64.powi(octaves as i32))
}

/// Smooth noise on a lattice, from 0 to 1.
fn noise(seed: u64, x: f64, y: f64) -> f64 {
    let (left, top) = (x.floor(), y.floor());
    let corner = |dx: f64, dy: f64| {
        unit(hash(seed, ((left + dx) as i64) as u64, ((top + dy) as i64) as u64))
    };
    let (u, v) = (smooth(x - left), smooth(y - top));
    let above = corner(0.0, 0.0) * (1.0 - u) + corner(1.0, 0.0) * u;
    let below = corner(0.0, 1.0) * (1.0 - u) + corner(1.0, 1.0) * u;
    above * (1.0 - v) + below * v
}

/// From 0 to 1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Mixes three numbers into one that looks random.
fn hash(a: u64, b: u64, c: u64) -> u64 {
    let mut bits =
        a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ c.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    for _ in 0..2 {
        bits = (bits ^ (bits >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    bits ^ (bits >> 29)
}
