//! The densest codecs for short mail: context mixing.
//!
//! Each bit is predicted from the bytes before it in many ways at once, the predictions are weighed by how well they did, and the bit is coded
//! in proportion to how surprising it was. Encoder and decoder run the same model, which begins with what both ends have read already.
//! `aldis::codec::payload` decides what is coded so and names the model on the air; `docs/codec.md` has the numbers.
//!
//! Integers only, so both ends of any two machines agree bit for bit; the work depends on the lengths alone (link-rules A1). A change of
//! anything in a model, one constant even, is another codec and takes another number on the air.

mod coder;
pub mod first;
mod logistic;
pub mod mail;
pub mod text;
