//! The demo's payload: estimates pi for the seed and the count that its token names.
//!
//! The token is the text `seed=17 count=200000` in the file that `TOKEN_FILE` names; the result is JSON in the file
//! that `RESULT_FILE` names. Exit status: 0 done, 1 a file could not be read or written, 2 the token is not one of ours.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a payload is a program of its own")]

use std::process::ExitCode;
use std::{env, fmt, fs};

fn main() -> ExitCode {
    match run() {
        Ok(estimate) => {
            println!("montecarlo: seed {} count {}: pi is about {:.6}", estimate.seed, estimate.count, estimate.pi());
            ExitCode::SUCCESS
        }
        Err(Failure::File(why)) => {
            eprintln!("montecarlo: {why}");
            ExitCode::from(1)
        }
        Err(Failure::Token(why)) => {
            eprintln!("montecarlo: bad token: {why}");
            ExitCode::from(2)
        }
    }
}

enum Failure {
    File(String),
    Token(String),
}

fn run() -> Result<Estimate, Failure> {
    let place = |variable| env::var(variable).map_err(|_| Failure::File(format!("{variable} is not set")));
    let (token, result) = (place("TOKEN_FILE")?, place("RESULT_FILE")?);
    let text = fs::read_to_string(&token).map_err(|error| Failure::File(format!("{token}: {error}")))?;
    let estimate = estimate(&parse(&text).map_err(Failure::Token)?);
    fs::write(&result, format!("{estimate}\n")).map_err(|error| Failure::File(format!("{result}: {error}")))?;
    Ok(estimate)
}

#[derive(Debug, PartialEq)]
struct Token {
    seed: u64,
    count: u64,
}

fn parse(text: &str) -> Result<Token, String> {
    let (mut seed, mut count) = (None, None);
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not key=value"))?;
        let place = match key {
            "seed" => &mut seed,
            "count" => &mut count,
            _ => return Err(format!("unknown key {key:?}")),
        };
        let number = value.parse().map_err(|_| format!("{key}: {value:?} is not a number"))?;
        if place.replace(number).is_some() {
            return Err(format!("{key} stands twice"));
        }
    }
    let token = Token { seed: seed.ok_or("no seed")?, count: count.ok_or("no count")? };
    if token.count == 0 { Err("count: 0 points estimate nothing".to_owned()) } else { Ok(token) }
}

struct Estimate {
    seed: u64,
    count: u64,
    inside: u64,
}

impl Estimate {
    fn pi(&self) -> f64 {
        4.0 * self.inside as f64 / self.count as f64
    }

    /// Standard error of a binomial share, times 4.
    fn stderr(&self) -> f64 {
        let share = self.inside as f64 / self.count as f64;
        4.0 * (share * (1.0 - share) / self.count as f64).sqrt()
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, count, inside } = self;
        let (pi, stderr) = (self.pi(), self.stderr());
        write!(f, r#"{{"seed":{seed},"count":{count},"inside":{inside},"pi":{pi:.6},"stderr":{stderr:.6}}}"#)
    }
}

/// Throws `count` points into the unit square and counts those inside the quarter circle.
fn estimate(token: &Token) -> Estimate {
    let mut random = SplitMix(token.seed);
    let inside = (0..token.count)
        .filter(|_| {
            let (x, y) = (random.unit(), random.unit());
            x * x + y * y < 1.0
        })
        .count() as u64;
    Estimate { seed: token.seed, count: token.count, inside }
}

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one, so neighbouring tokens give independent streams.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1): the upper 53 bits, as many as an f64 holds exactly.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let cases = [
            ("seed=17 count=200000", Ok(Token { seed: 17, count: 200_000 })),
            (" count=1\tseed=0\n", Ok(Token { seed: 0, count: 1 })),
            ("", Err("no seed")),
            ("seed=1", Err("no count")),
            ("seed=1 count=0", Err("count: 0 points estimate nothing")),
            ("seed=-1 count=5", Err("seed: \"-1\" is not a number")),
            ("seed=1 count=5 seed=2", Err("seed stands twice")),
            ("seed=1 cuont=5", Err("unknown key \"cuont\"")),
            ("17", Err("\"17\" is not key=value")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text:?}");
        }
    }

    /// First outputs for seed 1234567 as the generator's authors publish them.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix(1_234_567);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn the_estimate_is_pi_within_its_error() {
        for seed in 1..=8 {
            let estimate = estimate(&Token { seed, count: 200_000 });
            let off = (estimate.pi() - std::f64::consts::PI).abs();
            assert!(off < 4.0 * estimate.stderr(), "seed {seed}: {estimate}");
        }
    }

    #[test]
    fn the_result_is_json() {
        let result = Estimate { seed: 1, count: 4, inside: 3 }.to_string();
        assert_eq!(result, r#"{"seed":1,"count":4,"inside":3,"pi":3.000000,"stderr":0.866025}"#);
    }
}
