//! The messages: header fields as several programs write them, and the sentences in them.

use super::sentences::{ENGLISH, FRENCH, GERMAN, NORWEGIAN, POLISH, SPANISH};
use super::{Draw, Mail};

const CREW: [(&str, &str); 18] = [
    ("Wiebke Petersen", "w.petersen@polarforsk.example"),
    ("CDR Alistair Pryce", "apryce@hms-dauntless.example.uk"),
    ("Torvald Eide", "torvald@eide-fiskebat.example.no"),
    ("MAREVAC Desk", "marevac@rescue-coord.example.eu"),
    ("Siobhan Gallagher", "sgallagher@ferryline.example.ie"),
    ("Bernard Okonkwo", "b.okonkwo@waterworks.example.ng"),
    ("Sector South G2", "g2.south@sector.example.int"),
    ("Yannick Le Goff", "ylegoff@thonier.example.bzh"),
    ("Zsófia Kovács", "zsofia.kovacs@terepi.example.hu"),
    ("Quartermaster 4 LSR", "qm@4lsr.example.mod"),
    ("Padraig Nolan", "pnolan@metoffice.example.ie"),
    ("Marguerite Duval", "duval.m@ongsecours.example"),
    ("Fleet Broadcast", "broadcast@fleetcomcen.example.mod"),
    ("Aleksi Virtanen", "aleksi.virtanen@jaamurtaja.example.fi"),
    ("Noor al-Sayed", "noor@fieldhosp.example.jo"),
    ("Beatriz Salgado", "bsalgado@puertos.example.cl"),
    ("Ravi Menon", "ravi.menon@drydock.example.in"),
    ("Coxswain RNLB 17", "cox17@lifeboat.example.org"),
];

struct Head {
    sender: (&'static str, &'static str),
    others: Vec<(&'static str, &'static str)>,
    at: i64,
}

impl Head {
    fn of(draw: &mut Draw) -> Self {
        let mut crew: Vec<_> = CREW.to_vec();
        let sender = crew.swap_remove(draw.below(crew.len()));
        let others = (0..1 + draw.below(3)).map(|_| crew.swap_remove(draw.below(crew.len()))).collect();
        Self { sender, others, at: 1_741_000_000 + draw.below(40_000_000) as i64 }
    }

    fn domain(&self) -> &'static str {
        self.sender.1.split_once('@').map_or("", |(_, d)| d)
    }

    fn to(&self) -> String {
        self.others.iter().map(|(n, a)| format!("{n} <{a}>")).collect::<Vec<_>>().join(",\r\n ")
    }

    fn mail(&self, body: String) -> Mail {
        Mail {
            from: self.sender.1.into(),
            to: self.others.iter().map(|(_, a)| (*a).to_owned()).collect(),
            body: body.into_bytes(),
            parent: None,
        }
    }
}

/// As RFC 5322 writes it, in a zone of whole hours.
fn date(at: i64, zone: i64) -> String {
    let at = aldis::time::Wall::from_seconds(at + zone * 3600).rfc5322();
    format!("{}{}{:02}00", &at[..at.len() - 5], if zone < 0 { '-' } else { '+' }, zone.abs())
}

fn received(draw: &mut Draw, head: &Head, late: i64) -> String {
    let (domain, at) = (head.domain(), head.at + late);
    let ip = format!("{}.{}.{}.{}", 11 + draw.below(200), draw.below(255), draw.below(255), draw.below(255));
    match draw.below(5) {
        0 => format!(
            "Received: from edge{}.{domain} (edge{}.{domain} [{ip}])\r\n\tby smtp-in.{domain} (Postfix) with ESMTPS id {}\r\n\tfor <{}>; {}\r\n",
            draw.below(9),
            draw.below(9),
            draw.drawn("0123456789ABCDEF", 10),
            head.others[0].1,
            date(at, 0)
        ),
        1 => format!(
            "Received: from [{ip}] (port={} helo=cabin.{domain})\r\n\tby post.{domain} with esmtpsa  (TLS1.3) tls TLS_AES_128_GCM_SHA256\r\n\t(Exim 4.97.1)\r\n\t(envelope-from <{}>)\r\n\tid 1t{}-0000000{}-{};\r\n\t{}\r\n",
            1024 + draw.below(60_000),
            head.sender.1,
            draw.base64(4).replace(['+', '/'], "x"),
            draw.base64(4).replace(['+', '/'], "q"),
            draw.base64(4).replace(['+', '/'], "Z"),
            date(at, 1)
        ),
        2 => format!(
            "Received: from MBX{:02}.{domain} ({ip}) by CAS{:02}.{domain} ({ip}) with\r\n Microsoft SMTP Server (version=TLS1_2,\r\n cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id 15.2.1544.{}; {}\r\n",
            draw.below(20),
            draw.below(20),
            4 + draw.below(20),
            date(at, 2)
        ),
        3 => format!(
            "Received: by mail-ed1-f{}.google.com with SMTP id {}so{}a12.3\r\n        for <{}>; {} (PDT)\r\n",
            40 + draw.below(20),
            draw.hex(16),
            1_000_000 + draw.below(9_000_000),
            head.others[0].1,
            date(at, -7)
        ),
        _ => format!(
            "Received: from relay.{domain} (relay.{domain} [{ip}])\r\n\tby hub.{domain} (8.18.1/8.18.1) with ESMTP id {}{:06};\r\n\t{}\r\n",
            draw.drawn("0123456789ABCDEFGHIJ", 8),
            draw.below(999_999),
            date(at, 3)
        ),
    }
}

fn dkim(draw: &mut Draw, head: &Head) -> String {
    let signature: Vec<String> = (0..5).map(|_| draw.base64(68)).collect();
    format!(
        "DKIM-Signature: v=1; a=rsa-sha256; q=dns/txt; c=relaxed/relaxed; d={};\r\n s=k2; h=From:To:Subject:Date:Message-ID:MIME-Version;\r\n bh={}=;\r\n b={}==\r\n",
        head.domain(),
        draw.base64(43),
        signature.join("\r\n ")
    )
}

/// Fields as one of several programs orders and writes them; the last of them are those of the body.
fn fields(draw: &mut Draw, head: &Head, subject: &str, kind: &str) -> String {
    let (name, address) = head.sender;
    let (domain, to) = (head.domain(), head.to());
    match draw.below(6) {
        0 => format!(
            "Date: {}\r\nFrom: {name} <{address}>\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{}@{domain}>\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Disposition: inline\r\nUser-Agent: NeoMutt/20231103-{}-{}\r\n",
            date(head.at, 1),
            draw.base64(16).replace('/', "y"),
            draw.below(99),
            draw.hex(6)
        ),
        1 => format!(
            "From: {name} <{address}>\r\nContent-Type: {kind}\r\nMime-Version: 1.0 (Mac OS X Mail 13.4 \\(3608.120.23.2.7\\))\r\nSubject: {subject}\r\nDate: {}\r\nTo: {to}\r\nMessage-Id: <{}-{}-{}-{}-{}@{domain}>\r\nX-Mailer: Apple Mail (2.3608.120.23.2.7)\r\n",
            date(head.at, 2),
            draw.hex(8).to_uppercase(),
            draw.hex(4).to_uppercase(),
            draw.hex(4).to_uppercase(),
            draw.hex(4).to_uppercase(),
            draw.hex(12).to_uppercase()
        ),
        2 => format!(
            "From: \"{name}\" <{address}>\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {}\r\nMessage-ID: <{}$0$@{domain}>\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nX-Mailer: Microsoft Outlook 15.0\r\nThread-Index: Ad{}==\r\nContent-Language: nb\r\n",
            date(head.at, -4),
            draw.hex(20),
            draw.base64(28)
        ),
        3 => format!(
            "MIME-Version: 1.0\r\nDate: {}\r\nMessage-ID: <CAF{}@mail.gmail.com>\r\nSubject: {subject}\r\nFrom: {name} <{address}>\r\nTo: {to}\r\nContent-Type: {kind}\r\n",
            date(head.at, 0),
            draw.base64(40).replace('/', "_")
        ),
        4 => format!(
            "Date: {}\r\nFrom: {name} <{address}>\r\nTo: {to}\r\nMessage-ID: <{}.{}.{}.JavaMail.zimbra@{domain}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nX-Originating-IP: [172.16.{}.{}]\r\nX-Mailer: Zimbra 9.0.0_GA_4597 (ZimbraWebClient - GC126 (Win)/9.0.0_GA_4597)\r\nThread-Topic: {subject}\r\n",
            date(head.at, 5),
            draw.below(2_000_000_000),
            draw.below(9_000_000),
            head.at * 1000,
            draw.below(255),
            draw.below(255)
        ),
        _ => format!(
            "Date: {}\r\nFrom: {name} <{address}>\r\nTo: {to}\r\nSubject: {subject}\r\nUser-Agent: K-9 Mail for Android\r\nMessage-ID: <{}@{domain}>\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n",
            date(head.at, 3),
            draw.hex(32).to_uppercase()
        ),
    }
}

fn wrap(text: &str, width: usize, prefix: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.chars().count() > width {
            out.push_str("\r\n");
            column = 0;
        }
        if column == 0 {
            out.push_str(prefix);
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.chars().count();
    }
    out + "\r\n"
}

/// Sentences grouped to paragraphs, wrapped or long.
fn paragraphs(draw: &mut Draw, of: &[&str], sentences: usize, prefix: &str) -> String {
    let width = draw.one(&[68, 74, 76, 900]);
    let sentences = draw.sentences(of, sentences);
    sentences
        .chunks(4)
        .map(|p| wrap(&p.join(" "), width, prefix))
        .collect::<Vec<_>>()
        .join(&format!("{}\r\n", prefix.trim_end()))
}

const TOPICS: [&str; 14] = [
    "Jetty ice",
    "ANNEX C REV 2",
    "Re: gasket",
    "Culvert clearance",
    "FUEL/WATER RETURN WK 11",
    "Tender 44-B",
    "Survey line 7",
    "Fwd: sinks and drains",
    "INTREP 0093",
    "Dhow boarding",
    "Mum's hip",
    "Vaccine cold chain",
    "SKED CHANGE",
    "Borehole logs",
];

pub fn military(draw: &mut Draw) -> Mail {
    let head = Head::of(draw);
    let mut text = received(draw, &head, 4) + &received(draw, &head, 1);
    let subject = draw.one(&TOPICS);
    text += &fields(draw, &head, subject, "text/plain; charset=us-ascii");
    let (level, name) = draw.one(&[(0, "deferred"), (1, "routine"), (2, "priority"), (3, "immediate"), (4, "flash")]);
    let minute = draw.below(60);
    if draw.below(4) > 0 {
        text += &format!(
            "MMHS-Primary-Precedence: {level} ({name})\r\nMMHS-Extended-Authorisation-Info: {}\r\nMMHS-Subject-Indicator-Codes: {}\r\nMMHS-Message-Type: 0 (exercise); identifier=\"{}\"\r\nMMHS-Originator-Reference: {}/{}/{}\r\nSIO-Label: marking=\"{}\"; fgcolor=black; bgcolor=lime\r\n",
            date(head.at, 0),
            draw.one(&["WAA; WBB", "PQX", "NDD; KCC; LAB", "TGS"]),
            draw.one(&["NORDIC LANTERN 25", "BOLD PUFFIN", "COLD HARBOUR", "DESERT LYNX"]),
            draw.one(&["OPS", "N4", "LOG", "COS"]),
            10 + draw.below(80),
            1000 + draw.below(9000),
            draw.one(&["UK OFFICIAL", "EU LIMITE", "MISSION UNCLASSIFIED"]),
        );
    } else {
        text += &format!(
            "X-Precedence: {}\r\nX-DTG: {:02}{:02}{minute:02}Z\r\n",
            name.to_uppercase(),
            1 + draw.below(28),
            draw.below(24)
        );
    }
    let lines = draw.sentences(&ENGLISH, 5);
    text += "\r\n";
    if draw.below(2) == 0 {
        for (i, line) in lines.iter().enumerate() {
            text += &wrap(&format!("{}. {line}", i + 1).to_uppercase(), 66, "");
        }
        text += "BT\r\n";
    } else {
        text += &wrap(&lines.join(" "), 72, "");
        text += &format!("\r\n{}\r\n", head.sender.0);
    }
    head.mail(text)
}

pub fn long_text(draw: &mut Draw) -> Mail {
    let head = Head::of(draw);
    let mut text = received(draw, &head, 2);
    if draw.below(2) == 0 {
        text += &dkim(draw, &head);
    }
    let subject = draw.one(&TOPICS);
    text += &fields(draw, &head, subject, "text/plain; charset=utf-8");
    text += &format!("\r\nHello {},\r\n\r\n", head.others[0].0);
    text += &paragraphs(draw, &ENGLISH, 44, "");
    text += &format!("\r\nYours,\r\n{}\r\n", head.sender.0);
    head.mail(text)
}

pub fn html(draw: &mut Draw) -> Mail {
    let head = Head::of(draw);
    let boundary = format!("=-{}", draw.base64(20).replace('/', "."));
    let mut text = received(draw, &head, 2);
    let subject = draw.one(&TOPICS);
    text += &fields(draw, &head, subject, &format!("multipart/alternative;\r\n boundary=\"{boundary}\""));
    let lines = draw.sentences(&ENGLISH, 8);
    text += &format!(
        "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
    );
    for line in &lines {
        text += &(wrap(line, 76, "") + "\r\n");
    }
    text +=
        &format!("--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
    let escape = |line: &str| line.replace('&', "&amp;").replace('\'', "&#39;");
    match draw.below(3) {
        0 => {
            text += "<html>\r\n<head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\">\r\n<style type=\"text/css\">\r\n.notice { border-left: 4px solid #00695c; padding: 6px 12px; font: 15px/1.4 Verdana, Geneva, sans-serif; }\r\n.foot { color: #757575; font-size: 12px; }\r\n</style>\r\n</head>\r\n<body>\r\n";
            for line in &lines {
                text += &format!(
                    "<div class=\"notice\" style=\"margin-bottom: 10px;\">\r\n  <p style=\"font-family: Verdana, Geneva, sans-serif; font-size: 15px; color: #263238;\">{}</p>\r\n</div>\r\n",
                    escape(line)
                );
            }
            text += &format!("<p class=\"foot\">{}</p>\r\n</body>\r\n</html>\r\n", head.sender.0);
        }
        1 => {
            text += "<html><head><meta http-equiv=\"content-type\" content=\"text/html; charset=utf-8\"></head><body><table border=\"1\" cellpadding=\"4\" style=\"border-collapse:collapse;font-family:Arial\">\r\n";
            for (i, line) in lines.iter().enumerate() {
                text += &format!(
                    "<tr><td align=\"right\" valign=\"top\" style=\"background:#e8eaf6;width:32px\"><b>{}</b></td><td valign=\"top\" style=\"padding-left:8px\"><font color=\"#1a237e\">{}</font></td></tr>\r\n",
                    i + 1,
                    escape(line)
                );
            }
            text += "</table><br></body></html>\r\n";
        }
        _ => {
            text += "<html xmlns:o=\"urn:schemas-microsoft-com:office:office\" xmlns=\"http://www.w3.org/TR/REC-html40\">\r\n<head>\r\n<meta name=\"Generator\" content=\"Microsoft Word 14 (filtered medium)\">\r\n<style><!--\r\np.MsoNormal, li.MsoNormal, div.MsoNormal\r\n\t{margin:0in;\r\n\tfont-size:12.0pt;\r\n\tfont-family:\"Times New Roman\",\"serif\";}\r\n--></style>\r\n</head>\r\n<body lang=\"EN-US\" link=\"blue\" vlink=\"purple\">\r\n<div class=\"WordSection1\">\r\n";
            for line in &lines {
                text += &format!(
                    "<p class=\"MsoNormal\"><span style=\"font-size:10.5pt;font-family:&quot;Segoe UI&quot;,&quot;sans-serif&quot;;color:#1F497D\">{}<o:p></o:p></span></p>\r\n<p class=\"MsoNormal\"><span style=\"font-size:10.5pt;font-family:&quot;Segoe UI&quot;,&quot;sans-serif&quot;;color:#1F497D\"><o:p>&nbsp;</o:p></span></p>\r\n",
                    escape(line)
                );
            }
            text += "</div>\r\n</body>\r\n</html>\r\n";
        }
    }
    text += &format!("\r\n--{boundary}--\r\n");
    head.mail(text)
}

/// Answers a message both ends hold: some new words above or between the quoted ones.
pub fn reply(draw: &mut Draw) -> Mail {
    let head = Head::of(draw);
    let subject = draw.one(&TOPICS);
    let sentences = draw.sentences(&ENGLISH, 30);
    let (said, answer) = sentences.split_at(22);
    let said: Vec<String> = said.chunks(3).map(|p| wrap(&p.join(" "), 72, "")).collect();
    let mut parent = received(draw, &head, 3);
    parent += &fields(draw, &head, subject, "text/plain; charset=utf-8");
    parent += "\r\n";
    parent += &said.join("\r\n");
    let message_id = parent
        .lines()
        .find(|l| l.to_lowercase().starts_with("message-id:"))
        .and_then(|l| l.split_once(' '))
        .map_or(String::new(), |(_, id)| id.to_owned());

    let back =
        Head { sender: head.others[0], others: vec![head.sender], at: head.at + 5000 + draw.below(90_000) as i64 };
    let mut text = received(draw, &back, 3);
    text += &fields(draw, &back, &format!("Re: {subject}"), "text/plain; charset=utf-8");
    text += &format!("In-Reply-To: {message_id}\r\nReferences: {message_id}\r\n\r\n");
    // Some programs wrap again what they quote.
    let quoted = |p: &String, again: bool| {
        if again {
            wrap(&p.trim_end().replace("\r\n", " "), 70, "> ")
        } else {
            p.lines().map(|l| format!("> {l}\r\n")).collect()
        }
    };
    let again = draw.below(3) == 0;
    let intro = format!("On {}, {} wrote:\r\n", date(head.at, 1), head.sender.0);
    if draw.below(2) == 0 {
        text += &wrap(&answer.join(" "), 74, "");
        text += &format!("\r\n{}\r\n\r\n{intro}", back.sender.0);
        text += &said.iter().map(|p| quoted(p, again)).collect::<Vec<_>>().join(">\r\n");
    } else {
        text += &intro;
        for (i, p) in said.iter().enumerate() {
            text += &quoted(p, again);
            text += &answer.get(i).map_or(">\r\n".into(), |a| format!("\r\n{}\r\n", wrap(a, 74, "")));
        }
    }
    let mut mail = back.mail(text);
    mail.parent = Some(parent.into_bytes());
    mail
}

pub fn foreign(draw: &mut Draw) -> Mail {
    let head = Head::of(draw);
    let (of, subject): (&[&str], &str) = draw.one(&[
        (&GERMAN[..], "Bohrkerne und Drehmoment"),
        (&FRENCH[..], "Treuil et douane"),
        (&SPANISH[..], "Harina, burros y tornillos"),
        (&POLISH[..], "Cement i taczka"),
        (&NORWEGIAN[..], "Vinsj og vafler"),
    ]);
    let mut text = received(draw, &head, 2);
    text += &fields(draw, &head, subject, "text/plain; charset=utf-8");
    text += "\r\n";
    text += &paragraphs(draw, of, 10, "");
    text += &format!("\r\n{}\r\n", head.sender.0);
    head.mail(text)
}
