"""The data sets of the four papers: whose they are, what they hold, and by which files they are recognised.

Facts are those of the scripts in ``data_prep/``. Where an owner states no size or licence, that is what stands here.
"""

from dataclasses import dataclass

UNKNOWN = "not stated"


@dataclass(frozen=True)
class DataSet:
    """A data set of its owners."""

    name: str
    """Its script in ``data_prep/``, and the folder it is prepared into."""
    title: str
    page: str
    licence: str
    images: int
    """Images that have labels; 0: a list of prompts."""
    labels: tuple[tuple[str, ...], ...]
    """Label files: one of each group has to be there."""
    layout: str
    """What is expected below its folder."""
    size: str = UNKNOWN
    """Size of its archives, as its owners state it."""


def _meta(name: str) -> str:
    return f"meta_info_{name}Dataset.csv"


DATA_SETS = (
    DataSet(
        "koniq",
        "KonIQ-10k",
        "https://database.mmsp-kn.de/koniq-10k-database.html",
        "images under their own Creative Commons licences",
        10_073,
        (("koniq10k_distributions_sets.csv", _meta("KonIQ10k")),),
        "koniq10k_distributions_sets.csv, 1024x768/*.jpg",
    ),
    DataSet(
        "spaq",
        "SPAQ",
        "https://github.com/h4nwei/SPAQ",
        UNKNOWN,
        11_125,
        (("MOS and Image attribute scores.xlsx", _meta("SPAQ")),),
        "Annotations/MOS and Image attribute scores.xlsx, TestImage/*.jpg",
    ),
    DataSet(
        "live_wild",
        "LIVE in the Wild",
        "https://live.ece.utexas.edu/research/ChallengeDB/index.html",
        "UT Austin: free use with its notice and two citations",
        1_162,
        (("AllImages_release.mat", _meta("LIVEChallenge")),),
        "Data/All*_release.mat, Images/*.bmp and *.JPG",
    ),
    DataSet(
        "kadid",
        "KADID-10k",
        "https://database.mmsp-kn.de/kadid-10k-database.html",
        "see its owners' page",
        10_125,
        (("dmos.csv", _meta("KADID10k")),),
        "dmos.csv, images/*.png",
    ),
    DataSet(
        "pipal",
        "PIPAL",
        "https://github.com/HaomingCai/PIPAL-dataset",
        UNKNOWN,
        23_200,
        (("A0001.txt", "pipal22_train.txt", _meta("PIPAL")),),
        "Train_Label/*.txt, Distortion_1 to Distortion_4/*.bmp",
    ),
    DataSet(
        "csiq",
        "CSIQ",
        "https://s2.smu.edu/~eclarson/csiq",
        "see its owners' page",
        866,
        (("csiq.DMOS.xlsx", "csiq_label.txt", _meta("CSIQ")),),
        "csiq.DMOS.xlsx, dst_imgs/*/*.png",
    ),
    DataSet(
        "tid2013",
        "TID2013",
        "https://www.ponomarenko.info/tid2013.htm",
        "see its readme (TID2008's allows education and research only)",
        3_000,
        (("mos_with_names.txt", _meta("TID2013")),),
        "mos_with_names.txt, distorted_images/*.bmp",
    ),
    DataSet(
        "agiqa3k",
        "AGIQA-3K",
        "https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        "MIT",
        2_982,
        (("data.csv",),),
        "data.csv, *.jpg",
    ),
    DataSet(
        "dq495k",
        "DQ-495K",
        "https://huggingface.co/datasets/zhiyuanyou/DataDepictQA",
        "tag apache-2.0",
        140_000,
        (("train_refA_sd_mix_112k.json",), ("test_refA_sd_single_28k.json",)),
        "KADIS700K/refA_sd_brief/metas/*.json, KADIS700K/refA_sd_brief/dist_imgs/*.png",
    ),
    DataSet(
        "ava",
        "AVA",
        "https://github.com/imfing/ava_downloader",
        "images belong to their photographers and may not be passed on",
        255_530,
        (("AVA.txt",), ("generic_test.jpgl",)),
        "AVA.txt, aesthetics_image_lists/generic_test.jpgl, images/*.jpg",
    ),
    DataSet(
        "tad66k",
        "TAD66K",
        "https://github.com/woshidandan/TANet-image-aesthetics-and-quality-assessment",
        "labels Apache-2.0; images from Flickr under their own terms",
        66_327,
        (("train.csv",), ("test.csv",)),
        "labels/merge/train.csv and test.csv, *.jpg",
    ),
    DataSet(
        "evalmuse",
        "EvalMuse-40K",
        "https://huggingface.co/datasets/DY-Evalab/EvalMuse",
        "tag bsd-3-clause",
        30_000,
        (("train_list.json",),),
        "train_list.json, dataset/images/*/*",
        "54 GB in six parts",
    ),
    DataSet(
        "evalmi",
        "EvalMi-50K",
        "https://huggingface.co/datasets/IntMeGroup/EvalMi-50K",
        "tag apache-2.0",
        50_400,
        (("AIGI2025_MOS_yn.xlsx",), ("question.xlsx",)),
        "AIGI2025_MOS_yn.xlsx, question.xlsx, AIGI2025/*/*.png",
    ),
    DataSet(
        "genai_bench",
        "GenAI-Bench",
        "https://huggingface.co/datasets/BaiqiL/GenAI-Bench-1600",
        "tag apache-2.0 of BaiqiL/GenAI-Bench",
        9_600,
        (("genai_image.json",),),
        "genai_image.json, */*.jpeg",
    ),
    DataSet(
        "t2i_compbench",
        "T2I-CompBench",
        "https://github.com/Karine-Huang/T2I-CompBench",
        "MIT",
        1_800,
        (("manifest.csv", "manifest.jsonl"),),
        "manifest.csv of your own (image, prompt, category, score), images",
    ),
    DataSet(
        "geneval",
        "GenEval (prompts)",
        "https://github.com/djghosh13/geneval",
        "MIT",
        0,
        (("evaluation_metadata.jsonl",),),
        "prompts/evaluation_metadata.jsonl",
    ),
)
BY_NAME = {one.name: one for one in DATA_SETS}
