function I = mat2gray(A)
% As MATLAB documents it: imlincomb(delta, A, -low * delta, 'double'), then clipped; a picture of one value is clipped
% alone. Octave's own subtracts first, and keeps the class of a picture of one value.
low = double(min(A(:))); high = double(max(A(:)));
if high == low
  I = double(A);
else
  delta = 1 / (high - low);
  I = double(A) * delta + (-low * delta);
end
I = max(0, min(I, 1));
end
