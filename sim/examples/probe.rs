use aldis_sim::codec2::{audio::*,modem::*};use aldis_sim::rng::Stream;
fn main(){
  for mode in [Mode::Datac1, Mode::Datac3] {
   for (d,tau) in [(-1.0,0.0),(0.0,0.0),(0.0,0.002),(0.1,0.0),(1.0,0.0),(1.0,0.002)] { for snr in [0.0, 3.0, 20.0] { for forget in [false,true] {
    let mut tx=Modem::open(mode).unwrap(); let mut rx=Modem::open(mode).unwrap();
    let p=power(&mut tx);
    let n=20; let mut ok=0; let mut pw=0.0;
    for i in 0..n { let mut audio=vec![0.0;3200];let mut b=vec![0;mode.payload()]; Stream::new(1,"x",i).fill(&mut b); audio.extend(tx.burst(&b).iter().map(|&s|f64::from(s))); audio.extend(vec![0.0;4800]); 
    let mut path=AudioPath::new(if d<0.0{None}else{Some(Fading::new(1,&[i],Spread{name:"",doppler:d,delay:tau}))},0); let mut rc=Receiver::new(1,&[i],p,Some(snr));
    if forget { rx.forget(); }
    let mut h=vec![0.0;audio.len()]; path.carry(&audio,&mut h); pw+=h.iter().map(|x|x*x).sum::<f64>()/(mode.burst_samples() as f64)/p; let s:Vec<i16>=rc.convert(&h).collect(); 
    ok+=usize::from(rx.listen(s).contains(&b)); }
    println!("{mode:?} {d} {tau} snr {snr} forget {forget} ok {ok}/{n} power {}", pw/n as f64);
   }}}
  }
}
