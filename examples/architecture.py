"""A digit reader that fits into a few hundred numbers, as C, with a limit on its error."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from surefoot.architecture import CompactMLPClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

model = CompactMLPClassifier(
    steps=3000, certify_fraction=0.2, max_width=12, max_depth=1, random_state=0
).fit(X_train, y_train)
print(
    f"accuracy {model.score(X_test, y_test):.3f} with {model.n_nonzero_} numbers that are not zero"
)
print(f"{len(model.used_features_)} of {X.shape[1]} pixels are read")

small = model.pareto_[0]
print(f"the smallest of {len(model.pareto_)} points has {small.n_nonzero} numbers")
print(
    f"at {model.confidence:.0%} confidence the error on new rows is at most {model.chosen_.cert_bound:.3f}"
)

source = model.export("c")
print(f"{len(source.splitlines())} lines of C:")
print("\n".join(source.splitlines()[:6]))
for certificate in model.certificates(X_test, y_test):
    print(certificate.summary())
