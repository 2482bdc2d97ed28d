"""What the README tells of the results: all comparisons are in docs/speed.md."""

GROUPS = [  # text, group
    ("softmax cross-entropy and gradient, 8192 x 1000", "softmax_cross_entropy_grad 8192x1000"),
    ("the same, 65536 x 10", "softmax_cross_entropy_grad 65536x10"),
    ("the same, 4096 x 32768", "softmax_cross_entropy_grad 4096x32768"),
    (
        "linear + softmax cross-entropy and all gradients, 4096 x 128 x 1000 (rows x features x classes)",
        "linear_softmax_cross_entropy_grad 4096x128x1000",
    ),
    ("the same, 2048 x 256 x 32768", "linear_softmax_cross_entropy_grad 2048x256x32768"),
    ("InfoNCE and all gradients, 4096 x 128, one direction", "info_nce_grad 4096x128, directions: one"),
    ("binary cross-entropy and gradient, 16 million outputs", "binary_cross_entropy_grad 16000000"),
    ("a step of AdamW, 1 million parameters, beside PyTorch's fused one", "adamw 1000000"),
    ("the same, 30 million", "adamw 30000000"),
    ("the 10 best of 12,000 items for 60,000 queries, without those seen", "top_k 60000x12000x64x10"),
]
FITS = [  # text, against, file and comparison
    (
        '`SoftmaxClassifier(solver="lbfgs")` on Fashion-MNIST, to the objective of the peer',
        "`LogisticRegression(max_iter=100)`",
        "bench_softmax_classifier: lbfgs, Fashion-MNIST",
    ),
    (
        "the same on TF-IDF of banking77 (CSR)",
        "`LogisticRegression(max_iter=1000)`",
        "bench_softmax_classifier: lbfgs, banking77 TF-IDF, C=1",
    ),
    (
        "mini-batches on Fashion-MNIST, to a test accuracy of 0.845",
        "`LogisticRegression(max_iter=100)`",
        "bench_softmax_classifier: minibatch, Fashion-MNIST to 0.845",
    ),
    (
        "one epoch of Fashion-MNIST, batch size 64",
        "a PyTorch loop with the fused AdamW",
        "bench_softmax_classifier: epoch, Fashion-MNIST, against PyTorch",
    ),
    (
        "a step of `SoftmaxClassifier(n_negatives=1024)`, 100,000 classes, batches of 1024",
        "the same with all classes",
        "bench_candidate_sampling: a step, 100,000 classes",
    ),
    (
        '`LogisticClassifier(solver="lbfgs")` on the 159 tags of bibtex (CSR), to an objective and a micro-F1 no worse',
        "`OneVsRestClassifier(LogisticRegression(max_iter=1000))`",
        "bench_linear_estimators: 159 labels, bibtex, OneVsRestClassifier",
    ),
    (
        '`LinearRegressor(solver="lbfgs", loss="huber")` on California housing',
        "`HuberRegressor`",
        "bench_linear_estimators: Huber, California, HuberRegressor",
    ),
    ("the same, squared loss", "`Ridge`", "bench_linear_estimators: squared, California, Ridge"),
    (
        "one epoch of `MLPClassifier((256, 128, 100))` on Fashion-MNIST, batch size 64",
        "a PyTorch loop with the fused Adam",
        "bench_mlp: Fashion-MNIST, batch 64, PyTorch",
    ),
    ("the same, batch size 256", "the same", "bench_mlp: Fashion-MNIST, batch 256, PyTorch"),
    ("the same, batch size 1024", "the same", "bench_mlp: Fashion-MNIST, batch 1024, PyTorch"),
    ("the same, batch size 200", "scikit-learn's `MLPClassifier`", "bench_mlp: Fashion-MNIST, scikit-learn"),
    ("20 features, 50 hidden units, batch size 32", "the same", "bench_mlp: small network, scikit-learn"),
    ("the same", "the PyTorch loop", "bench_mlp: small network, PyTorch"),
    (
        "`MLPClassifier` on TF-IDF of banking77 (CSR)",
        "scikit-learn's `MLPClassifier`",
        "bench_mlp: banking77 TF-IDF, scikit-learn",
    ),
    (
        "an epoch of `TwoTower`, batches of 2048, sparse rows, 64 components",
        "a PyTorch loop with the fused AdamW",
        "bench_two_tower: sparse, 64 components",
    ),
    ("dense rows, a hidden layer of 256", "the same", "bench_two_tower: dense, a hidden layer of 256"),
    (
        '`SampledMF(loss="bpr")` by SGD on gowalla, an epoch, 64 factors',
        "`implicit`'s BPR",
        "bench_sampled_mf: epoch implicit sgd 64 gowalla",
    ),
    (
        "`WALS` on 4.5 million made-up interactions, 64 factors, to the objective of the peer after 15 iterations",
        "`implicit`'s ALS",
        "bench_wals: goal implicit cg 64 all",
    ),
    ("one epoch of conjugate gradient, the same", "`implicit`", "bench_wals: epoch implicit cg 64 all"),
    ("the same", "`irspack`", "bench_wals: epoch irspack cg 64 all"),
    ("one exact epoch", "`irspack`", "bench_wals: epoch irspack cholesky 64 all"),
]
